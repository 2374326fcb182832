//! What becomes of values: an adversarial table, properties, and the word of a real server.
#![allow(clippy::unwrap_used, reason = "a test")]

use proptest::prelude::*;

use super::*;

fn show(template: &str, untyped: Untyped, value: Value<'_>) -> String {
    let template = match Template::parse(template, untyped) {
        Ok(template) => template,
        Err(error) => return format!("template: {error}"),
    };
    match template.render(&vec![value; template.variables().len()]) {
        Ok(Statement::Query(query)) => {
            let params = query.params.iter().map(|param| match &param.value {
                Some(value) => format!(" {}={}", param.oid, String::from_utf8_lossy(value)),
                None => format!(" {}=NULL", param.oid),
            });
            format!("{}{}", query.sql, params.collect::<String>())
        }
        Ok(Statement::Listen(name)) => format!("LISTEN <{name}>"),
        Ok(Statement::Unlisten(name)) => format!("UNLISTEN <{name}>"),
        Ok(Statement::UnlistenAll) => "UNLISTEN ALL".to_owned(),
        Err(refusal) => format!("{:?}", refusal.reason),
    }
}

/// What a template becomes with a raw value in all its places.
fn check(template: &str, value: &str, expected: &str) {
    check_bytes(template, value.as_bytes(), Origin::Raw, expected);
}

fn check_bytes(template: &str, value: &[u8], origin: Origin, expected: &str) {
    let value = Value { bytes: Some(value), origin };
    assert_eq!(show(template, Untyped::Place, value), expected, "{template} with {value:?}");
}

#[test]
fn typed_variables_are_parameters() {
    check("select $a::int4 + 1", "41", "select $1 + 1 23=41");
    check("select $a::int4::text, ${a}::TEXT", "5", "select $1::text, $2 23=5 25=5");
    check("select $a::text", "x'; drop table t; --", "select $1 25=x'; drop table t; --");
    check("select $a::text", "", "select $1 25=NULL");
    check("select $a::integer", "1", "select $1::integer 0=1");
    check("select $a::my_enum", "1", "select $1::my_enum 0=1");
    check("select $a::25 as t", "x", "select $1 as t 25=x");
    check("select 1 as $n::ID", "q\"uote", "select 1 as \"q\"\"uote\"");
    check("select 1 as $n::id", "", "select 1 as NULL");
    assert_eq!(show("select $a::text", Untyped::Place, Value::default()), "select $1 25=NULL");
}

#[test]
fn the_newest_module_keeps_what_has_no_type() {
    for sql in ["select '$arg_a' as a, '100%' as p", "select '$' as d, $$x$$ as e", "select ${a}, $1"] {
        assert_eq!(show(sql, Untyped::Keep, Value::raw(b"v")), sql);
    }
    assert_eq!(show("select $a::int4 + $b", Untyped::Keep, Value::raw(b"1")), "select $1 + $b 23=1");
}

#[test]
fn parameters_of_2018() {
    let colon = |template, value: Value<'_>, expected: &str| {
        assert_eq!(show(template, Untyped::Colon, value), expected, "{template} with {value:?}");
    };
    let raw = |template, value: &str, expected| colon(template, Value::raw(value.as_bytes()), expected);
    raw("select :name, :i:id", "5", "select $1, $2 25=5 23=5");
    raw("select :f:x, :b:x, :j:x, :q:x", "1", "select $1, $2, $3, $4 701=1 16=1 114=1 0=1");
    raw("select :name::int4 || :n::text", "1", "select $1::int4 || $2::text 25=1 25=1");
    raw("select :name", "x'; drop table t; --", "select $1 25=x'; drop table t; --");
    raw("select :name", "", "select $1 25=");
    colon("select :name", Value::default(), "select $1 25=NULL");
    raw("select ':name', a[1:2], x::text, \":id\"", "v", "select ':name', a[1:2], x::text, \":id\"");
    raw("select :name from $name", "t", "select $1 from t 25=t");
    raw("select :name from $name", "t, secret", "NotOneToken");
    assert_eq!(show("select :name", Untyped::Place, Value::raw(b"v")), "select :name");
}

#[test]
fn inside_quotes() {
    check("select '$a'", r#"it's \ ""#, r#"select 'it''s \ "'"#);
    check("select '%${a}%'", "x", "select '%x%'");
    check("select E'$a'", r"\' or 1=1--", r"select E'\\'' or 1=1--'");
    check(r#"select "$a""#, "a\"b", r#"select "a""b""#);
    check("select U&'$a'", r"\0041'", r"select U&'\\0041'''");
    check("select $$a $a b$$", "it's", "select $$a it's b$$");
    check("select $$a $a b$$", "x$$; drop table t; $$", "NotOneToken");
    check("select $t$ $a $t$", "$t$", "NotOneToken");
    check("select '$a$b' || '$a$b'", "x", "select 'xx' || 'xx'");
    check("select '$a::text'", "x", "select 'x::text'");
    check("select E'a'\n'$a'", r"\'", "select E'a'\n'\\\\'''");
    check(r"select E'\$a'", "'", "NotOneToken");
}

#[test]
fn comments_take_nothing() {
    check("select 1 -- $a\n, 2", "\n; drop", "select 1 -- \n, 2");
    check("select /* $a */ 1", "*/ drop /*", "select /*  */ 1");
}

#[test]
fn bare_values() {
    check("select * from t where id = $a", "5", "select * from t where id = 5");
    check("select * from t where id = $a", "-5", "select * from t where id = '-5'");
    check("select * from t where id = $a", "1.5e3", "select * from t where id = 1.5e3");
    check("select * from t where id = $a", "id", "NameForValue");
    check("select * from t where ok = $a", "TRUE", "select * from t where ok = TRUE");
    check("select * from t where id = $a", "'x''y'", "select * from t where id = 'x''y'");
    check("select * from t where name = lower($a)", "name", "NameForValue");
    check("select * from t where id in ($a, $a)", "1", "select * from t where id in (1, 1)");
    check("select * from t where id in ($a)", "id", "NameForValue");
    check("insert into t (a) values ($a)", "a", "NameForValue");
    check("insert into t ($a) values (1)", "col", "insert into t (col) values (1)");
    check("select * from t limit $a offset $a", "10", "select * from t limit 10 offset 10");
    check("select * from t where $a = 5", "id", "select * from t where id = 5");
    check("select * from t where a between 1 and $a", "a", "NameForValue");
    check("select case when a then $a else 1 end", "a", "NameForValue");
    check("select $a", "", "Empty");
    check("select -$a", "-1", "select -'-1'");
}

#[test]
fn bare_names() {
    check("select * from $a", "t", "select * from t");
    check("select * from $a", "5", "NotAName");
    check("select * from $a", "\"T b\"", "select * from \"T b\"");
    check("select * from $a", "t, secret", "NotOneToken");
    check("select * from tbl_$a", "2024", "select * from tbl_2024");
    check("select * from tbl_$a", "x; drop", "NotAWord");
    check("select * from ${a}_log", "x", "select * from x_log");
    check("select * from t order by $a", "name", "select * from t order by name");
    check("select * from t order by a $a", "desc", "select * from t order by a desc");
    check("select t.$a from t", "name", "select t.name from t");
    check("select t.$a from t", "5", "NotAName");
    check("notify $a, 'x'", "Foo Bar", "notify \"Foo Bar\", 'x'");
}

#[test]
fn injections() {
    for value in [
        "1; drop table t",
        "1 or 1=1",
        "1--",
        "1/**/or/**/1",
        "1)",
        "'x' or ''=''",
        "''';",
        "'a' 'b'",
        "'a'\n'b'",
        "E'a'",
        "$$a$$",
        "a.b",
        "a b",
        "(select 1)",
        "*",
        "\\",
        "1,2",
        "\u{a0}1 ",
        "U&'x'",
        "\"a\"\"",
    ] {
        check("select * from t where id = $a", value, "NotOneToken");
    }
    check_bytes("select $a", b"a\0b", Origin::Raw, "Nul");
    check_bytes("select '$a'", b"\xff", Origin::Raw, "NotUtf8");
    check("do $$ begin perform '$a'; end $$", "'); drop table t; --", "NotAWord");
    check("do $$ begin perform '$a'; end $$", "abc", "do $$ begin perform 'abc'; end $$");
    check("select $a'x'", "E", "NotOneToken");
    check("$a $a", "listen", "NotOneToken");
    check("select 'a'\n$a", "'b'", "NotOneToken");
}

#[test]
fn quoted_before() {
    let sql = |template, value: &str, expected| check_bytes(template, value.as_bytes(), Origin::SqlQuoted, expected);
    sql("select $a", "'it''s'", "select 'it''s'");
    sql("select '$a'", "'it''s'", "select 'it''s'");
    sql("select $a::text", "'it''s'", "select $1 25=it's");
    sql("select $a", "NULL", "select NULL");
    sql("select $a::text", "NULL", "select $1 25=NULL");
    sql("select $a", "'it's'", "BrokenQuoting");
    sql("select * from $a", "'x'", "NotAName");
    let backslashed =
        |template, value: &str, expected| check_bytes(template, value.as_bytes(), Origin::SqlBackslashed, expected);
    backslashed("select $a", r"'it\'s \\'", r"select 'it''s \'");
    backslashed("select $a", r"E'it\'s'", "select 'it''s'");
    let json = |template, value: &str, expected| check_bytes(template, value.as_bytes(), Origin::JsonQuoted, expected);
    json("select $a::json", r#""a\"b""#, r#"select $1 114="a\"b""#);
    json(r#"select '{"id": $a}'"#, r#""it's""#, r#"select '{"id": "it''s"}'"#);
    json("select * from $a", r#""a\"b""#, r#"select * from "a""b""#);
    json(r#"select "$a""#, r#""a\"b""#, r#"select "a""b""#);
    json("select $a", "null", "select NULL");
    json("select $a", r#""a"; drop table t; --""#, "BrokenQuoting");
}

#[test]
fn channels() {
    check("listen $a", "Foo bar", "LISTEN <Foo bar>");
    check("LISTEN Foo;", "", "LISTEN <foo>");
    check(" /* x */ Listen \"Foo\" -- y\n ; ", "", "LISTEN <Foo>");
    check(r#"listen "pre ""$a""#, "q\"", "LISTEN <pre \"q\">");
    check("listen Pre_$a", "Foo-1", "LISTEN <pre_Foo-1>");
    check("unlisten $a::ID", "x;y", "UNLISTEN <x;y>");
    check("unlisten *", "", "UNLISTEN ALL");
    check("listen $a", "", "Empty");
    check("listen $a", &"k".repeat(63), &format!("LISTEN <{}>", "k".repeat(63)));
    let long = "k".repeat(64);
    check("listen $a", &long, &format!("LISTEN <{long}>"));
    check_bytes("listen $a", b"x\xffy", Origin::Raw, "NotUtf8");
    check_bytes("listen $a", b"x\0y", Origin::Raw, "Nul");
    check("listen a b", "", "template: \"listen\" takes the name of one channel");
    check("listen *", "", "template: \"listen\" takes the name of one channel");
    check("listen a; drop table t", "", "template: several statements in one query: \"drop table t\" follows a \";\"");
    assert_eq!(show("listen $a::ID", Untyped::Keep, Value::raw(b"Foo")), "LISTEN <Foo>");
}

#[test]
fn channels_of_the_recipe() {
    let json = |value: &str, expected| check_bytes("listen $channel", value.as_bytes(), Origin::JsonQuoted, expected);
    json(r#""MixedCase""#, "LISTEN <MixedCase>");
    json(r#""a\"b""#, "LISTEN <a\"b>");
    json(r#""a\\b""#, r"LISTEN <a\b>");
    json(r#""o'hara""#, "LISTEN <o'hara>");
    json(r#""a b""#, "LISTEN <a b>");
    json(r#""канал""#, "LISTEN <канал>");
    json(r#""x\";drop/**/table/**/t;--""#, "LISTEN <x\";drop/**/table/**/t;-->");
    json("null", "Empty");
}

#[test]
fn templates_that_are_none() {
    check("select 'a", "", "template: unterminated quote or comment at \"'a\"");
    check("select 1; select 2", "", "template: several statements in one query: \"select 2\" follows a \";\"");
    check("select 1;;", "", "select 1;;");
    check("", "", "");
}

#[test]
fn which_variables_get_into_the_text() {
    let template = Template::parse("select $a::text, '$b', $c::id, $a::int4 -- $d", Untyped::Place).unwrap();
    assert_eq!(template.variables(), ["a", "b", "c", "d"]);
    assert_eq!(template.spliced().collect::<Vec<_>>(), ["b", "c"]);
}

/// The server itself says what the values became: the very same, or nothing.
#[test]
fn a_real_server_reads_the_values_as_they_were() {
    use crate::pg::connection::{Connection, Query};
    use crate::pg::testing::{Cluster, on_worker};

    let template = "select '$a', E'$a', U&'$a', $t$$a$t$, '-' /* $a */, $a::text, e'\\n'\n'$a' as \"c$a\" -- $a";
    let template = Template::parse(template, Untyped::Place).unwrap();
    let mut values: Vec<String> = [
        "plain",
        "it's",
        "\\",
        "\\'",
        "''",
        "\"",
        "'; drop table pg_class; --",
        "$$",
        "$t",
        "$1",
        "*/",
        "/*",
        "--",
        "\n",
        "канал",
        "\u{7f}",
        "\\u0041",
        "\\0041",
        "$a::text",
        "%",
        "E'",
        "\u{1}",
        "a\r\nb",
        "??",
        ":x",
        "'\n'",
    ]
    .map(str::to_owned)
    .into();
    // Every pair of the characters that matter to the lexer.
    let marks = "'\"\\$-/*\n eEuU&;tx0";
    values.extend(marks.chars().flat_map(|first| marks.chars().map(move |second| format!("{first}{second}"))));
    let cluster = Cluster::start();
    on_worker(async {
        let mut connection = Connection::connect(&cluster.options("")).await.unwrap();
        let mut same = 0;
        for value in &values {
            let rendered = template.render(&[Value::raw(value.as_bytes())]);
            let Ok(Statement::Query(query)) = rendered else {
                assert!(value.contains('$'), "{value:?} refused: {rendered:?}");
                continue;
            };
            let columns = connection.query(&query).await.unwrap_or_else(|error| panic!("{value:?}: {error}"));
            let row = connection.next_row().await.unwrap().unwrap();
            let got: Vec<&[u8]> = (0..row.len()).filter_map(|column| row.get(column)).collect();
            let long = format!("\n{value}");
            let value = value.as_bytes();
            assert_eq!(got, [value, value, value, value, b"-", value, long.as_bytes()], "{}", query.sql);
            assert_eq!(columns[6].name, [b"c", value].concat(), "{}", query.sql);
            same += 1;
        }
        assert!(same > 200, "{same}");

        // As a token of its own: what is not refused does not touch the rest of the statement.
        let bare =
            Template::parse("select count(*) from generate_series(1, 3) g where g = $a", Untyped::Place).unwrap();
        for value in values.iter().map(String::as_str).chain(["1", "-1", "g", "1.0", "'1'", "true", "1 or true"]) {
            let Ok(Statement::Query(query)) = bare.render(&[Value::raw(value.as_bytes())]) else {
                continue;
            };
            if connection.query(&query).await.is_ok() {
                let row = connection.next_row().await.unwrap().unwrap();
                assert!(matches!(row.get(0), Some(b"0" | b"1")), "{}", query.sql);
            }
        }
        connection.query(&Query::from("select 1")).await.unwrap();
    });
}

#[test]
fn pasted_as_the_original_did() {
    let template = Template::parse("select '$a', $a::text", Untyped::Place).unwrap();
    let query = template.paste(&[Value::raw(b"x' || 'y")]).unwrap();
    assert_eq!((query.sql.as_str(), query.params.len()), ("select 'x' || 'y', $1", 1));
}

const TEMPLATES: &[&str] = &[
    "select $a",
    "select * from t where a = $a and b = '$a'",
    "select E'x$a' || \"$a\" || $$ $a $$ || U&'$a'",
    "select x_$a, ${a}y, $a$a /* $a */ -- $a",
    "select E'a'\n'$a', $a 'b'\n$a, 1$a, $a.$a",
    "$a $a",
    "do $x$ begin '$a' end $x$",
    "select e$a'x', -$a, $a::text, $a::id",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_value_leaves_the_tokens_as_they_are(
        template in prop::sample::select(TEMPLATES),
        value in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..12),
            r#"['"\\$a1eE;\-/* \n().,U&]{0,10}"#.prop_map(String::into_bytes),
        ],
    ) {
        fuzz_template(template, &value);
    }

    #[test]
    fn any_template_with_any_value(
        template in r#"['"\\$a1eE;\-/* \n().:{}x]{0,24}"#,
        value in r#"['"\\$a1E;\-/* \n]{0,8}"#,
    ) {
        fuzz_template(&template, value.as_bytes());
    }
}
