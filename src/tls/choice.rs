//! Which versions of TLS are offered, with which ciphers and groups, as OpenSSL is told.

use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, SupportedProtocolVersion};

use super::suites;

/// What is offered.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Whether TLS 1.2 is spoken.
    pub tls12: bool,
    /// Whether TLS 1.3 is spoken.
    pub tls13: bool,
    /// The ciphers of TLS 1.2; empty: all.
    pub tls12_ciphers: Vec<CipherSuite>,
    /// The ciphers of TLS 1.3; empty: all.
    pub tls13_ciphers: Vec<CipherSuite>,
    /// The groups; empty: all.
    pub groups: Vec<&'static dyn SupportedKxGroup>,
    /// Whether the server's order of ciphers counts.
    pub prefers_own: bool,
}

impl Choice {
    /// The versions; where none is left, all that there are.
    pub fn versions(&self) -> Vec<&'static SupportedProtocolVersion> {
        let mut versions: Vec<&'static SupportedProtocolVersion> = Vec::new();
        if self.tls13 || !self.tls12 {
            versions.push(&TLS13);
        }
        if self.tls12 || !self.tls13 {
            versions.push(&TLS12);
        }
        versions
    }

    /// The cryptography.
    pub fn provider(&self) -> CryptoProvider {
        suites::limited(&self.tls12_ciphers, &self.tls13_ciphers, &self.groups)
    }

    /// Carries a list of ciphers out. One that names none of OpenSSL's is refused in nginx's words.
    pub fn ciphers(&mut self, list: &str) -> Result<(), String> {
        let failed = || format!("SSL_CTX_set_cipher_list(\"{list}\") failed (SSL: {NO_CIPHER})");
        self.tls12_ciphers = suites::tls12_ciphers(list).ok_or_else(failed)?;
        Ok(())
    }

    /// Carries a command of OpenSSL's configuration out. One that is wrong is refused in nginx's words.
    pub fn command(&mut self, name: &str, value: &str) -> Result<(), String> {
        let failed = |reason: &str| format!("SSL_CONF_cmd(\"{name}\", \"{value}\") failed (SSL: {reason})");
        let bad_after =
            |reason: &str| failed(&format!("{reason}error:0A000180:SSL routines::bad value:cmd={name}, value={value}"));
        let bad = || bad_after("");
        let no_cipher = || bad_after(&format!("{NO_CIPHER} "));
        match name.to_ascii_lowercase().as_str() {
            "ciphersuites" => self.tls13_ciphers = suites::tls13_ciphers(value).map_err(|_| no_cipher())?,
            "cipherstring" => self.tls12_ciphers = suites::tls12_ciphers(value).ok_or_else(no_cipher)?,
            "groups" | "curves" => {
                let unknown = |group: String| {
                    let reason = "error:0A080106:SSL routines::passed invalid argument:group";
                    bad_after(&format!("{reason} '{group}' cannot be set "))
                };
                self.groups = suites::groups(value).map_err(unknown)?;
            }
            "minprotocol" => match value {
                "TLSv1.3" => self.tls12 = false,
                "TLSv1.2" | "TLSv1.1" | "TLSv1" | "SSLv3" | "None" => {}
                _ => return Err(bad()),
            },
            "maxprotocol" => match value {
                "TLSv1.3" | "None" => {}
                "TLSv1.2" | "TLSv1.1" | "TLSv1" | "SSLv3" => self.tls13 = false,
                _ => return Err(bad()),
            },
            "options" => {
                for option in value.split(',').map(|option| option.trim_start_matches(['+', '-'])) {
                    match OPTIONS.iter().any(|known| known.eq_ignore_ascii_case(option)) {
                        true if option.eq_ignore_ascii_case("ServerPreference") => {
                            self.prefers_own = !value.contains("-ServerPreference");
                        }
                        true => {}
                        false => return Err(bad()),
                    }
                }
            }
            known if COMMANDS.contains(&known) => {}
            _ => return Err(failed(&format!("error:0A000182:SSL routines::unknown cmd name:cmd={name}"))),
        }
        Ok(())
    }
}

const NO_CIPHER: &str = "error:0A0000B9:SSL routines::no cipher match";

/// Further commands that OpenSSL has, in lower case.
const COMMANDS: &[&str] = &[
    "protocol",
    "ecdhparameters",
    "dhparameters",
    "recordpadding",
    "numtickets",
    "verifymode",
    "certificate",
    "privatekey",
    "chaincafile",
    "chaincapath",
    "verifycafile",
    "verifycapath",
    "requestcafile",
    "clientcafile",
];

/// Words of the command `Options`.
const OPTIONS: &[&str] = &[
    "SessionTicket",
    "EmptyFragments",
    "Bugs",
    "Compression",
    "ServerPreference",
    "NoResumptionOnRenegotiation",
    "DHSingle",
    "ECDHSingle",
    "UnsafeLegacyRenegotiation",
    "UnsafeLegacyServerConnect",
    "EncryptThenMac",
    "NoRenegotiation",
    "AllowNoDHEKEX",
    "PreferNoDHEKEX",
    "PrioritizeChaCha",
    "MiddleboxCompat",
    "AntiReplay",
    "ExtendedMasterSecret",
    "CANames",
    "KTLS",
    "StrictCertCheck",
    "TxCertificateCompression",
    "RxCertificateCompression",
    "KTLSTxZerocopySendfile",
    "IgnoreUnexpectedEOF",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        let mut choice = Choice { tls12: true, tls13: true, ..Choice::default() };
        choice.command("MinProtocol", "TLSv1.3").expect("a version");
        choice.command("ciphersuites", "TLS_AES_128_GCM_SHA256").expect("a cipher");
        assert_eq!((choice.versions().len(), choice.tls13_ciphers.len()), (1, 1));
        let mut check = |name: &str, value: &str, reason: &str| {
            let expected = format!("SSL_CONF_cmd(\"{name}\", \"{value}\") failed (SSL: {reason})");
            assert_eq!(choice.command(name, value), Err(expected));
        };
        check("Foo", "bar", "error:0A000182:SSL routines::unknown cmd name:cmd=Foo");
        check("Options", "-Foo", "error:0A000180:SSL routines::bad value:cmd=Options, value=-Foo");
        check(
            "Groups",
            "foo",
            "error:0A080106:SSL routines::passed invalid argument:group 'foo' cannot be set \
             error:0A000180:SSL routines::bad value:cmd=Groups, value=foo",
        );
        check(
            "CipherString",
            "foo",
            "error:0A0000B9:SSL routines::no cipher match error:0A000180:SSL routines::bad value:cmd=CipherString, value=foo",
        );
    }
}
