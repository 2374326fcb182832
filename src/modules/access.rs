//! ngx_http_access_module: who may come in, by address.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::value::parse_network;
use crate::config::{Args, Call, Contexts, Cx, Declarations, Directive, Fault, Merge, Section, SectionRow, Slot};
use crate::http::access::Satisfy;
use crate::http::{Module, Next, Peer, Phase, Request};
use crate::server::log::Level;

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations {
        module: "http_access",
        sections: &[SectionRow::of::<Rules>(&[])],
        commands: COMMANDS,
        variables: &[],
    },
    phases: &[(Phase::Access, check)],
    acts: Some(|settings| !settings.get::<Rules>().rules.is_empty()),
    ..Module::EMPTY
};

const CONTEXTS: Contexts = Contexts::HTTP_ALL.union(Contexts::LIMIT_EXCEPT);

const COMMANDS: &[Directive] = &[
    Directive {
        name: "allow",
        contexts: CONTEXTS,
        args: Args::ONE,
        syntax: "address | network | unix: | all",
        doc: "Lets clients of an address or network in. The first `allow` or `deny` that fits a client decides; where \
              none does, it may come in. A block without any takes those around it.\n\nExample: `allow 10.0.0.0/8;`",
        file: file!(),
        apply: rule,
        ..Directive::BASE
    },
    Directive {
        name: "deny",
        contexts: CONTEXTS,
        args: Args::ONE,
        syntax: "address | network | unix: | all",
        doc: "Answers 403 to clients of an address or network.\n\nExample: `deny all;`",
        file: file!(),
        apply: rule,
        ..Directive::BASE
    },
];

/// The rules of a block, in order.
#[derive(Clone, Debug)]
pub struct Rules {
    rules: Vec<Rule>,
}

/// One `allow` or `deny`.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    who: Who,
    allow: bool,
}

#[derive(Clone, Copy, Debug)]
enum Who {
    All,
    Unix,
    Network(IpNet),
}

impl Section for Rules {
    type Raw = Vec<Rule>;

    fn merge(raw: &Self::Raw, parent: Option<&Self>, _: &mut Merge<'_>) -> Self {
        match parent {
            Some(parent) if raw.is_empty() => parent.clone(),
            _ => Self { rules: raw.clone() },
        }
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

fn rule(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let word = call.text(0);
    let who = match &*word {
        "all" => Who::All,
        "unix:" => Who::Unix,
        _ => {
            let (network, has_low_bits) =
                parse_network(&word).ok_or_else(|| Fault::new(format!("invalid parameter \"{word}\"")).word(0))?;
            if has_low_bits {
                cx.warn("low-address-bits", format!("low address bits of {word} are meaningless"), call);
            }
            Who::Network(network)
        }
    };
    cx.edit::<Rules>().push(Rule { who, allow: call.name() == "allow" });
    Ok(())
}

/// The handler of the access phase.
fn check(request: &mut Request) -> Next<'_> {
    match request.settings::<Rules>().decide(&request.peer) {
        None => Next::Declined,
        Some(true) => Next::Granted,
        Some(false) => {
            if !request.settings::<Satisfy>().is_any() {
                request.log(Level::Error, "access forbidden by rule");
            }
            Next::Status(403)
        }
    }
}

impl Rules {
    /// What the first rule that fits says.
    fn decide(&self, peer: &Peer) -> Option<bool> {
        // An IPv4 client of an IPv6 socket is an IPv4 client.
        let address = peer.ip().map(|address| address.to_canonical());
        self.rules.iter().find(|rule| rule.who.fits(address)).map(|rule| rule.allow)
    }
}

impl Who {
    /// Whether a client is meant; `None` is one of a socket in the file system.
    fn fits(&self, client: Option<IpAddr>) -> bool {
        match (self, client) {
            (Self::All, _) => true,
            (Self::Unix, client) => client.is_none(),
            (Self::Network(network), Some(address)) => network.contains(&address),
            (Self::Network(_), None) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, LoadOptions, load_text};

    fn load(rules: &str) -> Config {
        let text = format!("events {{}} http {{ server {{ {rules} location /x {{ }} }} }}");
        load_text(LoadOptions { offline: true, ..LoadOptions::default() }, text.as_bytes())
    }

    fn messages(rules: &str) -> Vec<String> {
        load(rules).built.diagnostics.iter().map(|finding| finding.message.clone()).collect()
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let check = |rules: &str, client: &str, expected: Option<bool>| {
            let peer = match client {
                "unix:" => Peer::Unix("/s".into()),
                address => Peer::Ip((address.parse::<IpAddr>().expect("a test's address"), 1).into()),
            };
            let config = load(rules);
            // The inner block takes the rules of the outer one.
            let scope = config.built.model.locations[0].scope;
            assert_eq!(config.settings(scope).get::<Rules>().decide(&peer), expected, "{rules} {client}");
        };
        check("", "127.0.0.1", None);
        check("allow 127.0.0.1; deny all;", "127.0.0.1", Some(true));
        check("allow 127.0.0.1; deny all;", "127.0.0.2", Some(false));
        check("deny 127.0.0.0/25; allow all;", "127.0.0.127", Some(false));
        check("deny 127.0.0.0/25; allow all;", "127.0.0.128", Some(true));
        check("deny 10.0.0.0/8;", "127.0.0.1", None);
        check("deny ::/0; allow all;", "127.0.0.1", Some(true));
        check("deny ::/0; allow all;", "::1", Some(false));
        check("allow 127.0.0.1; deny all;", "::ffff:127.0.0.1", Some(true));
        check("allow unix:; deny all;", "unix:", Some(true));
        check("allow unix:; deny all;", "::1", Some(false));
        check("allow 127.0.0.0/8;", "unix:", None);
    }

    #[test]
    fn wrong_words() {
        assert_eq!(messages("allow 127.0.0.1/16;"), ["low address bits of 127.0.0.1/16 are meaningless"]);
        assert_eq!(messages("deny 300.1.1.1;"), ["invalid parameter \"300.1.1.1\""]);
        assert_eq!(messages("deny all; allow none;"), ["invalid parameter \"none\""]);
        assert_eq!(messages("allow unix:; deny 2001:db8::/32; allow all;"), [""; 0]);
    }
}
