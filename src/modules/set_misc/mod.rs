//! ngx_set_misc: directives that give variables computed values, as steps of the rewrite phase beside `set`.
//!
//! Every one of them is a function of the texts it is given; [`step`] runs it and assigns what comes of it. A function that
//! can't do with what it is given answers the request with 500.

mod base32;
mod hash;
mod quote;
mod random;
mod step;
mod text;
mod time;
mod upstreams;

use crate::config::{Args, Contexts, Declarations, Directive, SectionRow};
use crate::http::{Module, Quoting};

use self::step::{assign, change, filter};

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations {
        module: "set_misc",
        sections: &[SectionRow::of::<base32::Base32>(&[]), SectionRow::of::<upstreams::Lists>(&[])],
        commands: COMMANDS,
        variables: &[],
    },
    ..Module::EMPTY
};

/// What these rows share.
const ROW: Directive = Directive { contexts: Contexts::HTTP_REWRITE, file: file!(), ..Directive::BASE };

/// A row for what changes one text.
const FILTER: Directive = Directive { args: Args::between(1, 2), syntax: "$variable [text]", ..ROW };

const COMMANDS: &[Directive] = &[
    Directive {
        name: "set_if_empty",
        args: Args::exactly(2),
        syntax: "$variable value",
        doc: "Gives a variable that is empty or unset a value.",
        apply: |cx, call| change(cx, call, text::if_empty),
        ..ROW
    },
    Directive {
        name: "set_quote_sql_str",
        doc: "Makes an SQL literal of a text, with backslashes.",
        apply: |cx, call| filter(cx, call, quote::sql, Some(Quoting::SqlBackslashes)),
        ..FILTER
    },
    Directive {
        name: "set_quote_pgsql_str",
        doc: "Makes an SQL literal of a text as PostgreSQL reads it: `E'...'`; what is not UTF-8 is written in octal.",
        apply: |cx, call| filter(cx, call, quote::pgsql, Some(Quoting::SqlBackslashes)),
        ..FILTER
    },
    Directive {
        name: "set_quote_json_str",
        doc: "Makes a JSON string of a text, `null` of an empty one.",
        apply: |cx, call| filter(cx, call, quote::json, Some(Quoting::Json)),
        ..FILTER
    },
    Directive {
        name: "set_unescape_uri",
        doc: "Decodes `%XX` and `+` in a text.",
        apply: |cx, call| filter(cx, call, text::unescape_uri, None),
        ..FILTER
    },
    Directive {
        name: "set_escape_uri",
        doc: "Writes all but letters, digits and a few signs as `%XX`.",
        apply: |cx, call| filter(cx, call, text::escape_uri, None),
        ..FILTER
    },
    Directive {
        name: "set_hashed_upstream",
        args: Args::exactly(3),
        syntax: "$variable list key",
        doc: "Chooses a name of an `upstream_list` by the hash of a key.",
        apply: upstreams::set_hashed_upstream,
        ..ROW
    },
    Directive {
        name: "upstream_list",
        contexts: Contexts::HTTP.union(Contexts::SERVER),
        args: Args::at_least(2),
        syntax: "name [weight:]item ...",
        file: file!(),
        doc: "Names a list for `set_hashed_upstream`; a number and a colon before an item repeat it.",
        apply: upstreams::upstream_list,
        ..Directive::BASE
    },
    Directive {
        name: "set_encode_base32",
        doc: "Encodes a text in base32.",
        apply: |cx, call| filter(cx, call, base32::encode, None),
        ..FILTER
    },
    Directive {
        name: "set_decode_base32",
        doc: "Decodes base32; a text of impossible length becomes empty.",
        apply: |cx, call| filter(cx, call, base32::decode, None),
        ..FILTER
    },
    Directive {
        name: "set_base32_padding",
        args: Args::ONE,
        syntax: "on | off",
        default: "on",
        doc: "Whether base32 is filled up with `=`.",
        apply: base32::padding,
        ..ROW
    },
    Directive {
        name: "set_misc_base32_padding",
        args: Args::ONE,
        syntax: "on | off",
        default: "on",
        doc: "The older name of `set_base32_padding`.",
        apply: base32::old_padding,
        ..ROW
    },
    Directive {
        name: "set_base32_alphabet",
        args: Args::ONE,
        syntax: "alphabet",
        default: "0123456789abcdefghijklmnopqrstuv",
        doc: "The 32 letters of base32.",
        apply: base32::alphabet,
        ..ROW
    },
    Directive {
        name: "set_encode_base64",
        doc: "Encodes a text in base64.",
        apply: |cx, call| filter(cx, call, text::encode_base64, None),
        ..FILTER
    },
    Directive {
        name: "set_decode_base64",
        doc: "Decodes base64.",
        apply: |cx, call| filter(cx, call, text::decode_base64, None),
        ..FILTER
    },
    Directive {
        name: "set_encode_base64url",
        doc: "Encodes a text in base64 with `-` and `_`, without padding.",
        apply: |cx, call| filter(cx, call, text::encode_base64url, None),
        ..FILTER
    },
    Directive {
        name: "set_decode_base64url",
        doc: "Decodes the same.",
        apply: |cx, call| filter(cx, call, text::decode_base64url, None),
        ..FILTER
    },
    Directive {
        name: "set_encode_hex",
        doc: "Writes the bytes of a text in hexadecimal.",
        apply: |cx, call| filter(cx, call, text::encode_hex, None),
        ..FILTER
    },
    Directive {
        name: "set_decode_hex",
        doc: "Decodes hexadecimal.",
        apply: |cx, call| filter(cx, call, text::decode_hex, None),
        ..FILTER
    },
    Directive {
        name: "set_md5",
        doc: "The MD5 digest of a text, in hexadecimal.",
        apply: |cx, call| filter(cx, call, hash::md5, None),
        ..FILTER
    },
    Directive {
        name: "set_sha1",
        doc: "The SHA-1 digest of a text, in hexadecimal.",
        apply: |cx, call| filter(cx, call, hash::sha1, None),
        ..FILTER
    },
    Directive {
        name: "set_hmac_sha1",
        args: Args::exactly(3),
        syntax: "$variable key text",
        doc: "The HMAC-SHA1 of a text under a key, as raw bytes.",
        apply: |cx, call| assign(cx, call, hash::hmac_sha1),
        ..ROW
    },
    Directive {
        name: "set_hmac_sha256",
        args: Args::exactly(3),
        syntax: "$variable key text",
        doc: "The HMAC-SHA256 of a text under a key, as raw bytes.",
        apply: |cx, call| assign(cx, call, hash::hmac_sha256),
        ..ROW
    },
    Directive {
        name: "set_random",
        args: Args::exactly(3),
        syntax: "$variable from to",
        doc: "A number by chance, both bounds included.",
        apply: |cx, call| assign(cx, call, random::random),
        ..ROW
    },
    Directive {
        name: "set_secure_random_alphanum",
        syntax: "$variable [length]",
        doc: "So many letters and digits by chance, at most 64.",
        apply: |cx, call| filter(cx, call, random::alphanum, None),
        ..FILTER
    },
    Directive {
        name: "set_secure_random_lcalpha",
        syntax: "$variable [length]",
        doc: "So many small letters by chance, at most 64.",
        apply: |cx, call| filter(cx, call, random::lcalpha, None),
        ..FILTER
    },
    Directive {
        name: "set_rotate",
        args: Args::exactly(3),
        syntax: "$variable from to",
        doc: "The number after the variable's own, or after the last one given; past the end the first.",
        apply: random::rotate,
        ..ROW
    },
    Directive {
        name: "set_local_today",
        args: Args::ONE,
        syntax: "$variable",
        doc: "Today, as `YYYY-MM-DD` in local time.",
        apply: |cx, call| assign(cx, call, time::local_today),
        ..ROW
    },
    Directive {
        name: "set_formatted_gmt_time",
        args: Args::exactly(2),
        syntax: "$variable format",
        doc: "The time in GMT, in the form that `strftime` makes of a format.",
        apply: |cx, call| assign(cx, call, time::gmt),
        ..ROW
    },
    Directive {
        name: "set_formatted_local_time",
        args: Args::exactly(2),
        syntax: "$variable format",
        doc: "The same in local time.",
        apply: |cx, call| assign(cx, call, time::local),
        ..ROW
    },
];
