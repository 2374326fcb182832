//! Every directive of set-misc on odd bytes: none, NUL, `%`, bytes over 127, long texts. The expected texts are those of
//! the original's recorded behaviour, or computed by other programs.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::fmt::Write;

use support::http;
use support::pushgate::Pushgate;

/// Directives that make a text of one text.
const FILTERS: [&str; 20] = [
    "set_quote_sql_str",
    "set_quote_pgsql_str",
    "set_quote_json_str",
    "set_unescape_uri",
    "set_escape_uri",
    "set_encode_base32",
    "set_decode_base32",
    "set_encode_base64",
    "set_decode_base64",
    "set_encode_base64url",
    "set_decode_base64url",
    "set_encode_hex",
    "set_decode_hex",
    "set_md5",
    "set_sha1",
    "set_secure_random_alphanum",
    "set_secure_random_lcalpha",
    "set_local_today",
    "set_formatted_gmt_time",
    "set_formatted_local_time",
];

/// A location for each directive: the text comes, and what is made of it goes, in hexadecimal.
fn config() -> String {
    let mut locations = String::new();
    let mut location = |name: &str, steps: &str| {
        writeln!(
            locations,
            "location = /{name} {{ set_decode_hex $t $arg_t; {steps}; set_encode_hex $r; return 200 $r; }}"
        )
        .unwrap();
    };
    for name in FILTERS {
        let argument = if name == "set_local_today" { "" } else { "$t" };
        location(name, &format!("{name} $r {argument}"));
    }
    location("set_if_empty", "set $r $t; set_if_empty $r other");
    location("set_hmac_sha1", "set_hmac_sha1 $r key $t");
    location("set_hmac_sha256", "set_hmac_sha256 $r key $t");
    location("set_hashed_upstream", "set_hashed_upstream $r planets $t");
    location("unknown_list", "set_hashed_upstream $r $t x");
    location("set_random", "set_random $r 5 $t");
    location("set_rotate", "set $r $t; set_rotate $r 5 7");
    location("rotate_bound", "set_rotate $r 1 $t");
    location(
        "alphabet",
        "set_base32_alphabet ABCDEFGHIJKLMNOPQRSTUVWXYZ234567; set_base32_padding off; set_encode_base32 $r $t",
    );
    location("old_padding", "set_misc_base32_padding off; set_encode_base32 $r $t");
    format!(
        "daemon off; error_log logs/error.log; pid logs/nginx.pid; worker_processes 1; events {{}}
         http {{ access_log off; upstream_list planets moon sun earth; server {{ listen 127.0.0.1:%%PORT%%;\n{locations} }} }}"
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        write!(out, "{byte:02x}").unwrap();
        out
    })
}

fn every_byte() -> Vec<u8> {
    (0..=255).collect()
}

#[test]
fn odd_bytes() {
    let server = Pushgate::start(&config(), &[]);
    // No text: the answer is a 500.
    let check = |location: &str, cases: &[(&[u8], Option<&[u8]>)]| {
        for (text, expected) in cases {
            let answer = http::get(server.port(), &format!("/{location}?t={}", hex(text)));
            let got = (answer.status == 200).then_some(answer.body);
            assert_eq!(got, expected.map(hex), "{location} of {}: {}", text.escape_ascii(), answer.status);
        }
    };
    check(
        "set_md5",
        &[
            (b"", Some(b"d41d8cd98f00b204e9800998ecf8427e")),
            (b"\x00\x1f%\x7f\x80\xff", Some(b"6c4b1d799db351ef2acf8dae7caf4e65")),
            (b"%", Some(b"0bcef9c45bd8a48eda1b26eb0c61c869")),
        ],
    );
    check(
        "set_sha1",
        &[
            (b"", Some(b"da39a3ee5e6b4b0d3255bfef95601890afd80709")),
            (b"\x00\x1f%\x7f\x80\xff", Some(b"0bc40a4a127b0642ee6e4796e3c9d5e40e083f60")),
            (b"%", Some(b"4345cb1fa27885a8fbfe7c0c830a592cc76a552b")),
        ],
    );
    check(
        "set_encode_hex",
        &[(b"", Some(b"")), (b"\x00\x1f%\x7f\x80\xff", Some(b"001f257f80ff")), (b"%", Some(b"25"))],
    );
    check(
        "set_encode_base64",
        &[(b"", Some(b"")), (b"\x00\x1f%\x7f\x80\xff", Some(b"AB8lf4D/")), (b"%", Some(b"JQ=="))],
    );
    check(
        "set_encode_base64url",
        &[(b"", Some(b"")), (b"\x00\x1f%\x7f\x80\xff", Some(b"AB8lf4D_")), (b"%", Some(b"JQ"))],
    );
    check(
        "set_encode_base32",
        &[(b"", Some(b"")), (b"\x00\x1f%\x7f\x80\xff", Some(b"00fiavs0vs======")), (b"%", Some(b"4k======"))],
    );
    check(
        "set_hmac_sha1",
        &[
            (b"", Some(b"\xf4+\xb0\xee\xb0\x18\xeb\xbdE\x97\xaer\x13q\x1e\xc6\x07`\x84?")),
            (b"\x00\x1f%\x7f\x80\xff", Some(b"\xbc\x9dD:\xb3\xf1_,qf\x8cN\x16\xfbi\xe0\xfc\xdd7G")),
            (b"%", Some(b"\x8fZ\xbdJ\x14\xd1\xce\x9c\x97\x0b\x95\xa9\x16\x8f\x18\xaaC\x88\xc4\x8f")),
        ],
    );
    check(
        "set_hmac_sha256",
        &[
            (b"", Some(b"]]\x13\x95c\xc9[Yg\xb9\xbd\x9a\x8c\x9b#:\x9d\xed\xb4PryL\xd22\xdc\x1bt\x83&\x07\xd0")),
            (
                b"\x00\x1f%\x7f\x80\xff",
                Some(b"\xbe\x03\xc5\xae\xb6\x88\xbd\xc1\x8f\x0d\xbfN+7\xff'\x14vNmu\x91r\xe5u\x03\xbf\xc7QM*\xd3"),
            ),
            (
                b"%",
                Some(b"\x09\x10!k\xe1\xa3?Z\xb1\xfd\x1b\xa1!\x8aI\x87\x06g\x9bz3\x81\x87'\xa3\xc3L\x06\x9c\x19~\xad"),
            ),
        ],
    );
    check("set_if_empty", &[(b"", Some(b"other")), (b"\x00", Some(b"\x00")), (b"\xff", Some(b"\xff"))]);
    check(
        "set_quote_sql_str",
        &[
            (b"", Some(b"''")),
            (
                b"\x00\x08\x09\x0a\x0d\x1a\x5c'\x22$\x01\x7f\x80\xff%",
                Some(b"'\x5c0\x5cb\x5ct\x5cn\x5cr\x5cZ\x5c\x5c\x5c'\x5c\x22\x5c$\x01\x7f\x80\xff%'"),
            ),
        ],
    );
    check(
        "set_quote_pgsql_str",
        &[
            (b"", Some(b"''")),
            (b"%\xc3\xbc'", Some(b"E'%\xc3\xbc\x5c''")),
            (b"\x80", Some(b"E'\x5c\x5c200'")),
            (b"a\xff\x00", Some(b"E'a\x5c\x5c377\x5c0'")),
            (b"\xc3", Some(b"E'\x5c\x5c303'")),
            (b"\xe4\xb8", Some(b"E'\x5c\x5c344\x5c\x5c270'")),
            (b"\xf8\x80\x80\x80\x80", Some(b"E'\x5c\x5c370\x5c\x5c200\x5c\x5c200\x5c\x5c200\x5c\x5c200'")),
            (b"\xc3\xbc\xff", Some(b"E'\x5c\x5c303\x5c\x5c274\x5c\x5c377'")),
            (b"\xc0\x80", Some(b"E'\xc0\x80'")),
            (b"\xe0\x80\x80", Some(b"E'\xe0\x80\x80'")),
            (b"\xed\xa0\x80", Some(b"E'\xed\xa0\x80'")),
            (b"\xf5\x80\x80\x80", Some(b"E'\xf5\x80\x80\x80'")),
            (b"\xe4 \x80", Some(b"E'\xe4 \x80'")),
        ],
    );
    check(
        "set_quote_json_str",
        &[
            (b"", Some(b"null")),
            (
                b"\x00\x08\x09\x0a\x0b\x0c\x0d\x1f\x22\x5c/%\x7f\x80\xff",
                Some(b"\x22\x5cu0000\x5cb\x5ct\x5cn\x5cu000b\x5cf\x5cr\x5cu001f\x5c\x22\x5c\x5c/%\x7f\x80\xff\x22"),
            ),
        ],
    );
    check(
        "set_unescape_uri",
        &[
            (b"", Some(b"")),
            (b"%00%ff%FF", Some(b"\x00\xff\xff")),
            (b"%g\x80", Some(b"g\x80")),
            (b"%\x00", Some(b"\x00")),
            (b"%4\x00z", Some(b"z")),
            (b"%4%41", Some(b"41")),
            (b"%%41", Some(b"%41")),
            (b"%+", Some(b"+")),
            (b"+%2b", Some(b" +")),
            (b"a%", Some(b"a")),
            (b"a%4", Some(b"a")),
            (b"\xff\x00", Some(b"\xff\x00")),
        ],
    );
    check("set_escape_uri", &[
        (b"", Some(b"")),
        (&every_byte(), Some(b"%00%01%02%03%04%05%06%07%08%09%0A%0B%0C%0D%0E%0F%10%11%12%13%14%15%16%17%18%19%1A%1B%1C%1D%1E%1F%20!%22%23$%25%26'()*%2B,-.%2F0123456789%3A%3B%3C%3D%3E%3F@ABCDEFGHIJKLMNOPQRSTUVWXYZ%5B%5C%5D%5E_`abcdefghijklmnopqrstuvwxyz%7B|%7D~%7F%80%81%82%83%84%85%86%87%88%89%8A%8B%8C%8D%8E%8F%90%91%92%93%94%95%96%97%98%99%9A%9B%9C%9D%9E%9F%A0%A1%A2%A3%A4%A5%A6%A7%A8%A9%AA%AB%AC%AD%AE%AF%B0%B1%B2%B3%B4%B5%B6%B7%B8%B9%BA%BB%BC%BD%BE%BF%C0%C1%C2%C3%C4%C5%C6%C7%C8%C9%CA%CB%CC%CD%CE%CF%D0%D1%D2%D3%D4%D5%D6%D7%D8%D9%DA%DB%DC%DD%DE%DF%E0%E1%E2%E3%E4%E5%E6%E7%E8%E9%EA%EB%EC%ED%EE%EF%F0%F1%F2%F3%F4%F5%F6%F7%F8%F9%FA%FB%FC%FD%FE%FF")),
    ]);
    check(
        "set_decode_hex",
        &[
            (b"", Some(b"")),
            (b"00fFA0", Some(b"\x00\xff\xa0")),
            (b"0", None),
            (b"0\x00", None),
            (b"%0", None),
            (b"\xff\xff", None),
            (b" 00", None),
        ],
    );
    check(
        "set_decode_base64",
        &[
            (b"", Some(b"")),
            (b"=", Some(b"")),
            (b"AA", Some(b"\x00")),
            (b"AAA=\xff\x00", Some(b"\x00\x00")),
            (b"A", None),
            (b"AAAAA", None),
            (b"AA\x00A", None),
            (b"%AAA", None),
            (b"\xe9AAA", None),
            (b"AA A", None),
            (b"AA\x0a", None),
            (b"//79", Some(b"\xff\xfe\xfd")),
            (b"__79", None),
        ],
    );
    check(
        "set_decode_base64url",
        &[
            (b"", Some(b"")),
            (b"=", Some(b"")),
            (b"AA", Some(b"\x00")),
            (b"AAA=\xff\x00", Some(b"\x00\x00")),
            (b"A", None),
            (b"AAAAA", None),
            (b"AA\x00A", None),
            (b"%AAA", None),
            (b"\xe9AAA", None),
            (b"AA A", None),
            (b"AA\x0a", None),
            (b"__79", Some(b"\xff\xfe\xfd")),
            (b"//79", None),
        ],
    );
    check(
        "set_decode_base32",
        &[
            (b"", Some(b"")),
            (b"00fiavs0vs======", Some(b"\x00\x1f%\x7f\x80\xff")),
            (b"c", Some(b"")),
            (b"cpn", Some(b"")),
            (b"cpnmuo", Some(b"")),
            (b"\x00\xff%z\x80\x81\x82\x83", Some(b"\x00\x00\x00\x00\x00")),
            (b"c4=\x00", Some(b"a")),
        ],
    );
    check("alphabet", &[(b"\x00\x1f%\x7f\x80\xff", Some(b"AAPSK74A74"))]);
    check("old_padding", &[(b"\xff", Some(b"vs"))]);
    check(
        "set_hashed_upstream",
        &[
            (b"", Some(b"moon")),
            (b"hello", Some(b"sun")),
            (b"HELLO", Some(b"sun")),
            (b"\x00", Some(b"moon")),
            (b"\x80\xff", Some(b"earth")),
            (b"%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%", Some(b"moon")),
        ],
    );
    check("unknown_list", &[(b"\xff", None)]);
    check(
        "set_random",
        &[
            (b"", None),
            (b"%", None),
            (b"\x00", None),
            (b"\xff", None),
            (b"1\x00", None),
            (b"-1", None),
            (b" 1", None),
            (b"9999999999999999999999999999999999999999", None),
            (b"5", Some(b"5")),
        ],
    );
    check(
        "set_secure_random_alphanum",
        &[
            (b"", None),
            (b"%", None),
            (b"\x00", None),
            (b"\xff", None),
            (b"1\x00", None),
            (b"-1", None),
            (b" 1", None),
            (b"9999999999999999999999999999999999999999", None),
        ],
    );
    check(
        "set_secure_random_lcalpha",
        &[
            (b"", None),
            (b"%", None),
            (b"\x00", None),
            (b"\xff", None),
            (b"1\x00", None),
            (b"-1", None),
            (b" 1", None),
            (b"9999999999999999999999999999999999999999", None),
        ],
    );
    check("rotate_bound", &[(b"\xff", None), (b"", None)]);
    check("set_rotate", &[(b"6", Some(b"7")), (b"7", Some(b"5")), (b"\xff\x00", Some(b"6"))]);
    check(
        "set_formatted_gmt_time",
        &[(b"", Some(b"")), (b"\xff%%%Z", Some(b"\xff%GMT")), (&[b'x'; 255], Some(&[b'x'; 255])), (&[b'x'; 256], None)],
    );
    check("set_formatted_local_time", &[(b"", Some(b"")), (b"\xe9%%", Some(b"\xe9%")), (&[b'x'; 256], None)]);
    let today = http::get(server.port(), "/set_local_today").body;
    assert_eq!(today.len(), 2 * "2000-01-01".len(), "{today}");
    for name in ["set_secure_random_alphanum", "set_secure_random_lcalpha"] {
        for (length, digits) in [("1", 1), ("64", 64)] {
            let word = http::get(server.port(), &format!("/{name}?t={}", hex(length.as_bytes()))).body;
            assert_eq!(word.len(), 2 * digits, "{name}");
        }
        assert_eq!(http::get(server.port(), &format!("/{name}?t={}", hex(b"65"))).status, 500);
    }
}
