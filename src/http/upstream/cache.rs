//! `proxy_cache...` and its like: read and checked, so that a configuration loads; nothing is cached.

use crate::config::value::{Template, Value, parse_number, parse_offset, parse_sec, parse_size};
use crate::config::{Args, Call, Contexts, Cx, Directive, Fault, Merge, Section, Slot, Status};

/// The status of what a cache would need.
pub const NOT_CACHED: Status = Status::Ignored("nothing is cached: each request goes to the upstream");

/// The row of `proxy_cache_path` or its like.
pub const fn path_row(name: &'static str) -> Directive {
    Directive {
        name,
        contexts: Contexts::HTTP,
        args: Args::at_least(2),
        syntax: "path [levels=levels] keys_zone=name:size [inactive=time] [max_size=size] ...",
        status: NOT_CACHED,
        doc: "A zone of nginx's cache.",
        file: file!(),
        apply: path,
        ..Directive::BASE
    }
}

/// The names of the zones.
#[derive(Clone, Debug)]
pub struct Zones;

impl Section for Zones {
    type Raw = Vec<String>;

    fn merge(_: &Self::Raw, _: Option<&Self>, _: &mut Merge<'_>) -> Self {
        Self
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

fn path(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let mut has_zone = false;
    for index in 1..call.len() {
        let word = call.text(index);
        let is_valid = match word.split_once('=') {
            Some(("keys_zone", zone)) => {
                has_zone = true;
                let name = zone.split_once(':').map_or(zone, |(name, _)| name);
                if cx.edit::<Zones>().iter().any(|known| known == name) {
                    return Err(Fault::new(format!("duplicate zone \"{name}\"")).word(index));
                }
                cx.edit::<Zones>().push(name.to_owned());
                let size = zone.split_once(':').and_then(|(_, size)| parse_size(size.as_bytes()));
                if size.is_none_or(|size| size < 8192) {
                    return Err(Fault::new(format!("invalid keys zone size \"{word}\"")).word(index));
                }
                true
            }
            Some(("levels", levels)) => levels.split(':').all(|level| matches!(level, "1" | "2")),
            Some(("inactive", time)) => parse_sec(time.as_bytes()).is_some(),
            Some(("max_size" | "min_free", size)) => parse_offset(size.as_bytes()).is_some(),
            Some(("use_temp_path" | "purger", flag)) => matches!(flag, "on" | "off"),
            Some((name, _)) => {
                name.starts_with("manager_") || name.starts_with("loader_") || name.starts_with("purger_")
            }
            None => false,
        };
        if !is_valid {
            return Err(Fault::new(format!("invalid parameter \"{word}\"")).word(index));
        }
    }
    match has_zone {
        true => Ok(()),
        false => Err(Fault::new(format!("\"{}\" must have \"keys_zone\" parameter", call.name()))),
    }
}

/// A list of texts with variables.
#[derive(Clone, Debug, Default)]
pub struct Texts;

impl Value for Texts {
    const ARGS: Args = Args::SOME;
    const ONCE: bool = false;
    const SYNTAX: &'static str = "string ...";

    fn parse(call: &Call<'_>, cx: &mut Cx<'_>) -> Result<Self, Fault> {
        for index in 0..call.len() {
            Template::word(call, index, cx)?;
        }
        Ok(Self)
    }

    fn from_default(_: &'static str) -> Self {
        Self
    }
}

/// `GET`, `HEAD`, `POST`.
#[derive(Clone, Debug, Default)]
pub struct Methods;

impl Value for Methods {
    const ARGS: Args = Args::SOME;
    const SYNTAX: &'static str = "GET | HEAD | POST ...";

    fn parse(call: &Call<'_>, _: &mut Cx<'_>) -> Result<Self, Fault> {
        let is_known =
            |word: &[u8]| [&b"GET"[..], b"HEAD", b"POST"].iter().any(|known| word.eq_ignore_ascii_case(known));
        match call.words().position(|word| !is_known(word)) {
            Some(index) => Err(Fault::new(format!("invalid value \"{}\"", call.text(index))).word(index)),
            None => Ok(Self),
        }
    }

    fn from_default(_: &'static str) -> Self {
        Self
    }
}

/// Statuses and a time.
#[derive(Clone, Debug, Default)]
pub struct Valid;

impl Value for Valid {
    const ARGS: Args = Args::SOME;
    const ONCE: bool = false;
    const SYNTAX: &'static str = "[code ...] time";

    fn parse(call: &Call<'_>, _: &mut Cx<'_>) -> Result<Self, Fault> {
        let last = call.len() - 1;
        if parse_sec(call.bytes(last)).is_none() {
            return Err(Fault::new(format!("invalid time value \"{}\"", call.text(last))).word(last));
        }
        for index in 0..last {
            let is_status = parse_number(call.bytes(index)).is_some_and(|status| (100..=599).contains(&status));
            if !is_status && call.bytes(index) != b"any" {
                return Err(Fault::new(format!("invalid status \"{}\"", call.text(index))).word(index));
            }
        }
        Ok(Self)
    }

    fn from_default(_: &'static str) -> Self {
        Self
    }
}

#[cfg(test)]
mod tests {
    use crate::config::testing::findings;

    #[test]
    fn words() {
        let check = |directives: &str, expected: &[&str]| assert_eq!(findings(directives), expected, "{directives}");
        check("proxy_cache_path /c levels=1:2 keys_zone=z:10m max_size=1g inactive=60m use_temp_path=off;", &[]);
        check("proxy_cache_path /c levels=1:2;", &["\"proxy_cache_path\" must have \"keys_zone\" parameter"]);
        check("proxy_cache_path /c keys_zone=z:1;", &["invalid keys zone size \"keys_zone=z:1\""]);
        check("proxy_cache_path /c keys_zone=z:1m color=red;", &["invalid parameter \"color=red\""]);
        check(
            "proxy_cache_path /c keys_zone=z:1m; proxy_cache z; proxy_cache_valid 200 302 10m; proxy_cache_valid any 1m;",
            &[],
        );
        check("proxy_cache y; server { }", &["\"proxy_cache\" zone \"y\" is unknown"]);
        check("proxy_cache_path /c keys_zone=z:1m; proxy_cache_path /d keys_zone=z:1m;", &["duplicate zone \"z\""]);
        check(
            "proxy_cache_path /c keys_zone=z:1m; server { proxy_cache z; proxy_store on; }",
            &["\"proxy_store\" directive is incompatible with \"proxy_cache\""],
        );
        check("proxy_cache_valid 200 soon;", &["invalid time value \"soon\""]);
        check("proxy_cache_use_stale error timeout updating http_500;", &[]);
        check("proxy_cache_methods GET PUT;", &["invalid value \"PUT\""]);
        check("proxy_cache_bypass $http_a $cookie_b; proxy_no_cache $nosuch;", &["unknown \"nosuch\" variable"]);
    }
}
