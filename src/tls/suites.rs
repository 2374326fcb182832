//! What OpenSSL's words for protocols, ciphers and curves mean for rustls.

use rustls::crypto::aws_lc_rs::ALL_KX_GROUPS;
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::{CipherSuite, NamedGroup, SupportedCipherSuite};

use super::provider;

/// A cipher of TLS 1.2 that rustls has: OpenSSL's name, and the words that stand for it among others.
struct Known {
    suite: CipherSuite,
    name: &'static str,
    words: &'static [&'static str],
}

const KNOWN: &[Known] = &[
    Known {
        suite: CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        name: "ECDHE-ECDSA-AES256-GCM-SHA384",
        words: &["ECDSA", "aECDSA", "AESGCM", "AES", "AES256", "SHA384"],
    },
    Known {
        suite: CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        name: "ECDHE-RSA-AES256-GCM-SHA384",
        words: &["RSA", "aRSA", "AESGCM", "AES", "AES256", "SHA384"],
    },
    Known {
        suite: CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        name: "ECDHE-ECDSA-CHACHA20-POLY1305",
        words: &["ECDSA", "aECDSA", "CHACHA20"],
    },
    Known {
        suite: CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        name: "ECDHE-RSA-CHACHA20-POLY1305",
        words: &["RSA", "aRSA", "CHACHA20"],
    },
    Known {
        suite: CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        name: "ECDHE-ECDSA-AES128-GCM-SHA256",
        words: &["ECDSA", "aECDSA", "AESGCM", "AES", "AES128", "SHA256"],
    },
    Known {
        suite: CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        name: "ECDHE-RSA-AES128-GCM-SHA256",
        words: &["RSA", "aRSA", "AESGCM", "AES", "AES128", "SHA256"],
    },
];

/// Words that stand for each of them.
const COMMON: &[&str] = &[
    "ALL",
    "COMPLEMENTOFALL",
    "DEFAULT",
    "HIGH",
    "ECDH",
    "EECDH",
    "ECDHE",
    "kECDHE",
    "kEECDH",
    "TLSv1.2",
    "AEAD",
    "FIPS",
];

/// Words of OpenSSL for what rustls has none of.
const FOREIGN: &[&str] = &[
    "EDH",
    "DHE",
    "kEDH",
    "kDHE",
    "DH",
    "ADH",
    "AECDH",
    "aNULL",
    "eNULL",
    "NULL",
    "LOW",
    "MEDIUM",
    "EXP",
    "EXPORT",
    "EXPORT40",
    "EXPORT56",
    "3DES",
    "DES",
    "RC2",
    "RC4",
    "IDEA",
    "SEED",
    "CAMELLIA",
    "CAMELLIA128",
    "CAMELLIA256",
    "ARIA",
    "ARIA128",
    "ARIA256",
    "ARIAGCM",
    "AESCCM",
    "AESCCM8",
    "MD5",
    "SHA",
    "SHA1",
    "PSK",
    "kPSK",
    "aPSK",
    "kRSA",
    "kDHEPSK",
    "kECDHEPSK",
    "kRSAPSK",
    "SRP",
    "kSRP",
    "aSRP",
    "DSS",
    "aDSS",
    "kDH",
    "aDH",
    "kDHr",
    "kDHd",
    "aECDH",
    "kECDH",
    "kECDHe",
    "kECDHr",
    "KRB5",
    "kKRB5",
    "aKRB5",
    "GOST",
    "aGOST",
    "kGOST",
    "SSLv2",
    "SSLv3",
    "TLSv1",
    "TLSv1.0",
    "TLSv1.1",
    "COMPLEMENTOFDEFAULT",
    "SUITEB128",
    "SUITEB192",
    "CBC",
];

/// Carries a list of ciphers out, as OpenSSL reads it. `None`: it names nothing that OpenSSL has. The list may come out
/// empty: it names only what rustls has not.
pub fn tls12_ciphers(list: &str) -> Option<Vec<CipherSuite>> {
    let mut chosen: Vec<&Known> = Vec::new();
    let mut dead: Vec<CipherSuite> = Vec::new();
    let mut is_known = false;
    for item in list.split([':', ',', ' ', ';']).filter(|item| !item.is_empty() && !item.starts_with('@')) {
        let (sign, words) = match item.as_bytes()[0] {
            sign @ (b'!' | b'-' | b'+') => (sign, &item[1..]),
            _ => (0, item),
        };
        is_known |= sign == 0 && words.split('+').all(has_meaning);
        let meant: Vec<&Known> = KNOWN.iter().filter(|known| words.split('+').all(|word| known.is(word))).collect();
        for known in meant {
            let place = chosen.iter().position(|other| other.suite == known.suite);
            match (sign, place) {
                (b'!', _) => {
                    dead.push(known.suite);
                    chosen.retain(|other| other.suite != known.suite);
                }
                (b'-', _) => chosen.retain(|other| other.suite != known.suite),
                (b'+', Some(place)) => {
                    let known = chosen.remove(place);
                    chosen.push(known);
                }
                (0, None) if !dead.contains(&known.suite) => chosen.push(known),
                _ => {}
            }
        }
    }
    is_known.then(|| chosen.iter().map(|known| known.suite).collect())
}

impl Known {
    fn is(&self, word: &str) -> bool {
        self.name == word || COMMON.contains(&word) || self.words.contains(&word)
    }
}

fn has_meaning(word: &str) -> bool {
    let is_name = word.contains('-')
        && (word.contains("AES") || word.contains("CHACHA") || word.contains("SHA") || word.contains("MD5"));
    KNOWN.iter().any(|known| known.is(word)) || FOREIGN.contains(&word) || is_name
}

/// The suites of TLS 1.3 that a list names, in its order. The word that is none comes back as an error.
pub fn tls13_ciphers(list: &str) -> Result<Vec<CipherSuite>, String> {
    let mut chosen = Vec::new();
    for name in list.split(':').filter(|name| !name.is_empty()) {
        match name {
            "TLS_AES_256_GCM_SHA384" => chosen.push(CipherSuite::TLS13_AES_256_GCM_SHA384),
            "TLS_AES_128_GCM_SHA256" => chosen.push(CipherSuite::TLS13_AES_128_GCM_SHA256),
            "TLS_CHACHA20_POLY1305_SHA256" => chosen.push(CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
            "TLS_AES_128_CCM_SHA256" | "TLS_AES_128_CCM_8_SHA256" => {}
            _ => return Err(name.to_owned()),
        }
    }
    Ok(chosen)
}

/// OpenSSL's name of a cipher.
pub fn cipher_name(suite: CipherSuite) -> String {
    if let Some(known) = KNOWN.iter().find(|known| known.suite == suite) {
        return known.name.to_owned();
    }
    match suite.as_str() {
        Some(name) => openssl_name(name).unwrap_or_else(|| name.replace("TLS13_", "TLS_")),
        None => format!("0x{:04x}", u16::from(suite)),
    }
}

/// OpenSSL's name of what a client may offer and we don't have. `None`: it is the standard's.
fn openssl_name(name: &str) -> Option<String> {
    let (exchange, cipher) = name.strip_prefix("TLS_")?.split_once("_WITH_")?;
    let exchange = match exchange {
        "RSA" => String::new(),
        "DH_anon" => "ADH-".to_owned(),
        "ECDH_anon" => "AECDH-".to_owned(),
        exchange => exchange.replace('_', "-") + "-",
    };
    let mut cipher = cipher.replace("3DES_EDE_CBC", "DES-CBC3").replace("RC4_128", "RC4").replace("CCM_8", "CCM8");
    cipher = cipher.replace("CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305");
    for (standard, own) in [("AES_", "AES"), ("CAMELLIA_", "CAMELLIA"), ("ARIA_", "ARIA")] {
        cipher = cipher.replace(standard, own);
    }
    // Where it goes without saying.
    if !exchange.contains("PSK") {
        cipher = cipher.replace("_CBC", "");
    }
    Some(exchange + &cipher.replace('_', "-"))
}

/// A group for the exchange of keys, by OpenSSL's names.
fn group_of(name: &str) -> Option<NamedGroup> {
    let same = |names: &[&str]| names.iter().any(|other| other.eq_ignore_ascii_case(name));
    Some(match () {
        () if same(&["X25519"]) => NamedGroup::X25519,
        () if same(&["prime256v1", "secp256r1", "P-256"]) => NamedGroup::secp256r1,
        () if same(&["secp384r1", "P-384"]) => NamedGroup::secp384r1,
        () if same(&["secp521r1", "P-521"]) => NamedGroup::secp521r1,
        () if same(&["X448"]) => NamedGroup::X448,
        () if same(&["ffdhe2048"]) => NamedGroup::FFDHE2048,
        () if same(&["ffdhe3072"]) => NamedGroup::FFDHE3072,
        () if same(&["ffdhe4096"]) => NamedGroup::FFDHE4096,
        () if same(&["ffdhe6144"]) => NamedGroup::FFDHE6144,
        () if same(&["ffdhe8192"]) => NamedGroup::FFDHE8192,
        () if same(&["X25519MLKEM768"]) => NamedGroup::X25519MLKEM768,
        () if same(&["SecP256r1MLKEM768"]) => NamedGroup::secp256r1MLKEM768,
        () if same(&["MLKEM512"]) => NamedGroup::MLKEM512,
        () if same(&["MLKEM768"]) => NamedGroup::MLKEM768,
        () if same(&["MLKEM1024"]) => NamedGroup::MLKEM1024,
        () => return None,
    })
}

/// Groups of OpenSSL that rustls never has.
const OLD_CURVES: &[&str] = &[
    "secp256k1",
    "secp224r1",
    "secp192r1",
    "prime192v1",
    "brainpoolP256r1",
    "brainpoolP384r1",
    "brainpoolP512r1",
    "sect283k1",
    "sect571r1",
    "sect409r1",
    "sect233r1",
    "P-224",
    "P-192",
    "SecP384r1MLKEM1024",
];

/// OpenSSL's name of a group.
pub fn group_name(group: NamedGroup) -> String {
    match group {
        NamedGroup::secp256r1 => "prime256v1".to_owned(),
        NamedGroup::secp256r1MLKEM768 => "SecP256r1MLKEM768".to_owned(),
        NamedGroup::FFDHE2048 => "ffdhe2048".to_owned(),
        NamedGroup::FFDHE3072 => "ffdhe3072".to_owned(),
        NamedGroup::FFDHE4096 => "ffdhe4096".to_owned(),
        NamedGroup::FFDHE6144 => "ffdhe6144".to_owned(),
        NamedGroup::FFDHE8192 => "ffdhe8192".to_owned(),
        group => group.as_str().map_or_else(|| format!("0x{:04x}", u16::from(group)), str::to_owned),
    }
}

/// The groups that a list names and rustls has, in its order. The word that OpenSSL does not know comes back as an error.
pub fn groups(list: &str) -> Result<Vec<&'static dyn SupportedKxGroup>, String> {
    let mut chosen = Vec::new();
    for name in list.split(':').filter(|name| !name.is_empty()) {
        match group_of(name.trim_start_matches(['?', '*'])) {
            Some(group) => chosen.extend(ALL_KX_GROUPS.iter().copied().filter(|known| known.name() == group)),
            None if OLD_CURVES.iter().any(|old| old.eq_ignore_ascii_case(name)) => {}
            None => return Err(name.to_owned()),
        }
    }
    Ok(chosen)
}

/// The program's cryptography, with these ciphers and groups alone. An empty list stands for those that are usual.
pub fn limited(
    tls12: &[CipherSuite],
    tls13: &[CipherSuite],
    groups: &[&'static dyn SupportedKxGroup],
) -> CryptoProvider {
    let mut limited = CryptoProvider::clone(provider());
    let all = std::mem::take(&mut limited.cipher_suites);
    let is_13 = |suite: &SupportedCipherSuite| suite.tls13().is_some();
    for (wanted, is_new) in [(tls13, true), (tls12, false)] {
        let of_version = || all.iter().copied().filter(|suite| is_13(suite) == is_new);
        let chosen = wanted.iter().filter_map(|wanted| of_version().find(|suite| suite.suite() == *wanted));
        let chosen: Vec<SupportedCipherSuite> = chosen.collect();
        match chosen.is_empty() {
            true => limited.cipher_suites.extend(of_version()),
            false => limited.cipher_suites.extend(chosen),
        }
    }
    if !groups.is_empty() {
        limited.kx_groups = groups.to_vec();
    }
    limited
}

/// Whether OpenSSL knows an algorithm of signatures by this name: `ed25519`, `ECDSA+SHA256`.
pub fn is_signature_algorithm(name: &str) -> bool {
    match name.split_once('+') {
        None => SIGNATURES.contains(&name),
        Some((key, hash)) => {
            matches!(key, "RSA" | "RSA-PSS" | "PSS" | "DSA" | "ECDSA")
                && ["SHA1", "SHA224", "SHA256", "SHA384", "SHA512"].contains(&hash.to_ascii_uppercase().as_str())
        }
    }
}

/// Algorithms of signatures by the names of TLS 1.3.
const SIGNATURES: &[&str] = &[
    "ecdsa_secp256r1_sha256",
    "ecdsa_secp384r1_sha384",
    "ecdsa_secp521r1_sha512",
    "ed25519",
    "ed448",
    "ecdsa_sha224",
    "ecdsa_sha1",
    "rsa_pss_rsae_sha256",
    "rsa_pss_rsae_sha384",
    "rsa_pss_rsae_sha512",
    "rsa_pss_pss_sha256",
    "rsa_pss_pss_sha384",
    "rsa_pss_pss_sha512",
    "rsa_pkcs1_sha256",
    "rsa_pkcs1_sha384",
    "rsa_pkcs1_sha512",
    "rsa_pkcs1_sha224",
    "rsa_pkcs1_sha1",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn check(list: &str, expected: Option<&str>) {
        let names = tls12_ciphers(list).map(|list| list.into_iter().map(cipher_name).collect::<Vec<_>>().join(" "));
        assert_eq!(names.as_deref(), expected, "{list}");
    }

    #[test]
    fn algorithms_of_signatures() {
        for known in ["ed25519", "rsa_pss_rsae_sha256", "RSA+SHA256", "RSA-PSS+sha512", "ECDSA+SHA1"] {
            assert!(is_signature_algorithm(known), "{known}");
        }
        for unknown in ["", "ED25519", "RSA", "RSA+", "RSA+MD6", "rsa+SHA256"] {
            assert!(!is_signature_algorithm(unknown), "{unknown}");
        }
    }

    #[test]
    fn lists_of_ciphers() {
        let all = "ECDHE-ECDSA-AES256-GCM-SHA384 ECDHE-RSA-AES256-GCM-SHA384 ECDHE-ECDSA-CHACHA20-POLY1305 \
                   ECDHE-RSA-CHACHA20-POLY1305 ECDHE-ECDSA-AES128-GCM-SHA256 ECDHE-RSA-AES128-GCM-SHA256";
        check("HIGH:!aNULL:!MD5", Some(all));
        check(
            "EECDH+CHACHA20:EECDH+AES:!AES256",
            Some(
                "ECDHE-ECDSA-CHACHA20-POLY1305 ECDHE-RSA-CHACHA20-POLY1305 ECDHE-ECDSA-AES128-GCM-SHA256 \
             ECDHE-RSA-AES128-GCM-SHA256",
            ),
        );
        check("ECDHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES128-GCM-SHA256", Some("ECDHE-RSA-AES128-GCM-SHA256"));
        check("ECDH+aRSA+AESGCM:+AES256:@STRENGTH", Some("ECDHE-RSA-AES128-GCM-SHA256 ECDHE-RSA-AES256-GCM-SHA384"));
        check("RC4-SHA:AES256-SHA", Some(""));
        check("foo", None);
        check("foo:HIGH:!RSA:RSA:-ECDSA", Some(""));
    }

    #[test]
    fn names_as_openssl_has_them() {
        for (suite, name) in [
            (CipherSuite::TLS_DHE_RSA_WITH_AES_256_GCM_SHA384, "DHE-RSA-AES256-GCM-SHA384"),
            (CipherSuite::TLS_DHE_RSA_WITH_CHACHA20_POLY1305_SHA256, "DHE-RSA-CHACHA20-POLY1305"),
            (CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA384, "ECDHE-ECDSA-AES256-SHA384"),
            (CipherSuite::TLS_RSA_WITH_AES_128_CBC_SHA, "AES128-SHA"),
            (CipherSuite::TLS_RSA_WITH_3DES_EDE_CBC_SHA, "DES-CBC3-SHA"),
            (CipherSuite::TLS_PSK_WITH_AES_128_CBC_SHA, "PSK-AES128-CBC-SHA"),
            (CipherSuite::TLS_EMPTY_RENEGOTIATION_INFO_SCSV, "TLS_EMPTY_RENEGOTIATION_INFO_SCSV"),
            (CipherSuite::TLS13_AES_128_GCM_SHA256, "TLS_AES_128_GCM_SHA256"),
            (CipherSuite::from(0x0a0a), "0x0a0a"),
        ] {
            assert_eq!(cipher_name(suite), name);
        }
    }

    #[test]
    fn lists_of_groups() {
        let names =
            |list: &str| groups(list).map(|all| all.iter().map(|group| group_name(group.name())).collect::<Vec<_>>());
        assert_eq!(names("X25519:prime256v1:secp521r1"), Ok(vec!["X25519".to_owned(), "prime256v1".to_owned()]));
        let hybrids = ["X25519MLKEM768", "SecP256r1MLKEM768"].map(str::to_owned).to_vec();
        assert_eq!(names("x25519mlkem768:SecP256r1MLKEM768:SecP384r1MLKEM1024"), Ok(hybrids));
        assert_eq!(names("X25519:foo"), Err("foo".to_owned()));
    }
}
