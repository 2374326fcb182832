//! Against a PostgreSQL of their own.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use super::*;
use crate::pg::testing::{Cluster, on_worker};

/// Columns with their OIDs, then the rows, then the command tag; or the error.
async fn ask(connection: &mut Connection, query: &Query) -> String {
    match read(connection, query).await {
        Ok(shown) => shown,
        Err(Error::Sql(error)) => format!("{} {}", error.code, error.message),
        Err(error) => error.to_string(),
    }
}

async fn read(connection: &mut Connection, query: &Query) -> Result<String, Error> {
    let columns = connection.query(query).await?;
    let mut shown: String =
        columns.iter().map(|column| format!("{}:{} ", column.name.escape_ascii(), column.oid)).collect();
    while let Some(row) = connection.next_row().await? {
        let values: Vec<String> = (0..row.len())
            .map(|column| row.get(column).map_or_else(|| "NULL".to_owned(), |value| value.escape_ascii().to_string()))
            .collect();
        shown.push_str(&format!("[{}]", values.join("|")));
    }
    Ok(format!("{shown}{}", connection.command_tag()))
}

async fn check(connection: &mut Connection, sql: &str, expected: &str) {
    assert_eq!(ask(connection, &Query::from(sql)).await, expected, "{sql}");
}

#[test]
fn questions_and_answers() {
    let cluster = Cluster::start();
    on_worker(async {
        let mut c = Connection::connect(&cluster.options("")).await.unwrap();
        check(&mut c, "select 1 as a, 'x' as b, null, true", "a:23 b:25 ?column?:25 ?column?:16 [1|x|NULL|t]SELECT 1")
            .await;
        check(
            &mut c,
            "select 1.5::numeric, '\\x01'::bytea, 'NaN'::float8",
            "numeric:1700 bytea:17 float8:701 [1.5|\\\\x01|NaN]SELECT 1",
        )
        .await;
        check(&mut c, "create temp table t (a int)", "CREATE TABLE").await;
        check(&mut c, "insert into t values (1), (2)", "INSERT 0 2").await;
        check(&mut c, "select * from t where a > 5", "a:23 SELECT 0").await;
        check(&mut c, "", "").await;
        check(&mut c, "select 1/0", "22012 division by zero").await;
        check(&mut c, "select nope", "42703 column \"nope\" does not exist").await;
        check(&mut c, "select 1; select 2", "42601 cannot insert multiple commands into a prepared statement").await;
        // The error comes after rows have gone out.
        check(&mut c, "select 1/(3-a) from generate_series(1,3) a", "22012 division by zero").await;
        check(&mut c, "select 'still here'", "?column?:25 [still here]SELECT 1").await;
        assert!(c.is_reusable() && !c.is_tls() && c.parameter("server_version").is_some());
        check(
            &mut c,
            "select application_name from pg_stat_activity where pid = pg_backend_pid()",
            "application_name:25 [nginx]SELECT 1",
        )
        .await;

        let binary = Query { format: Format::Binary, ..Query::from("select 5") };
        assert_eq!(ask(&mut c, &binary).await, "?column?:23 [\\x00\\x00\\x00\\x05]SELECT 1");
        parameters_and_prepared_statements(&mut c).await;
        pipelined(&mut c).await;

        check(&mut c, "begin", "BEGIN").await;
        assert!(c.transaction() == TransactionStatus::Open && !c.is_reusable());
        check(&mut c, "rollback", "ROLLBACK").await;
        assert!(c.is_reusable());
        check(&mut c, "set standard_conforming_strings = off", "SET").await;
        assert!(!c.is_reusable());

        check(
            &mut c,
            "select pg_terminate_backend(pg_backend_pid())",
            "FATAL:  terminating connection due to administrator command",
        )
        .await;
        assert!(c.is_broken());

        let mut c = Connection::connect(&cluster.socket_options()).await.unwrap();
        check(&mut c, "copy (select 1) to stdout", "COPY is not supported").await;
        many_rows(&cluster).await;
        cancelled(&cluster).await;
        logins(&cluster).await;
        killed_in_the_middle(&cluster).await;
        out_of_connections(&cluster).await;
    });
}

async fn parameters_and_prepared_statements(c: &mut Connection) {
    let param =
        |oid, value: Option<&str>| Param { oid, value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())) };
    let mut query = Query::from("select $1 as a, $2 as b");
    query.params = vec![param(23, Some("41")), param(25, None)];
    query.reusable = true;
    for _ in 0..3 {
        assert_eq!(ask(c, &query).await, "a:23 b:25 [41|NULL]SELECT 1");
    }
    check(c, "select count(*) from pg_prepared_statements where statement like '%as b'", "count:20 [1]SELECT 1").await;
    query.params[0] = param(23, Some("x"));
    assert_eq!(ask(c, &query).await, "22P02 invalid input syntax for type integer: \"x\"");
    query.params[0] = param(25, Some("it's"));
    assert_eq!(ask(c, &query).await, "a:25 b:25 [it\\'s|NULL]SELECT 1");

    // What is prepared may become invalid.
    check(c, "create temp table changing (a int)", "CREATE TABLE").await;
    let all = Query { reusable: true, ..Query::from("select * from changing") };
    assert_eq!(ask(c, &all).await, "a:23 SELECT 0");
    check(c, "alter table changing add b text", "ALTER TABLE").await;
    assert_eq!(ask(c, &all).await, "a:23 b:25 SELECT 0");
    check(c, "deallocate all", "DEALLOCATE ALL").await;
    assert_eq!(ask(c, &all).await, "a:23 b:25 SELECT 0");
    let wrong = Query { reusable: true, ..Query::from("select * from nowhere") };
    for _ in 0..2 {
        assert_eq!(ask(c, &wrong).await, "42P01 relation \"nowhere\" does not exist");
    }
}

async fn pipelined(c: &mut Connection) {
    for sql in ["select 1", "select 1/0", "select 3"] {
        c.send(&Query::from(sql)).unwrap();
    }
    c.start().await.unwrap();
    assert_eq!(c.next_row().await.unwrap().unwrap().get(0), Some(&b"1"[..]));
    assert!(c.next_row().await.unwrap().is_none());
    assert_eq!(c.start().await.unwrap_err().sqlstate(), Some("22012"));
    c.start().await.unwrap();
    assert_eq!(c.next_row().await.unwrap().unwrap().get(0), Some(&b"3"[..]));
    assert!(c.next_row().await.unwrap().is_none() && c.is_drained());
}

async fn many_rows(cluster: &Cluster) {
    let mut c = Connection::connect(&cluster.options("")).await.unwrap();
    c.query(&Query::from("select i, repeat('x', 100) from generate_series(1, 200000) i")).await.unwrap();
    let mut rows = 0;
    while let Some(row) = c.next_row().await.unwrap() {
        rows += 1;
        assert_eq!(row.get(1).map(<[u8]>::len), Some(100));
    }
    assert_eq!((rows, c.command_tag()), (200_000, "SELECT 200000"));
}

/// The backend dies while rows are on their way.
async fn killed_in_the_middle(cluster: &Cluster) {
    let mut c = Connection::connect(&cluster.options("")).await.unwrap();
    let endless = Query::from("select i, repeat('x', 1000) from generate_series(1, 100000000) i");
    c.query(&endless).await.unwrap();
    c.next_row().await.unwrap().unwrap();
    cluster.psql(&format!("select pg_terminate_backend({})", c.backend_pid()));
    let error = loop {
        match c.next_row().await {
            Ok(row) => assert!(row.is_some()),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Lost { .. }), "{error}");
    assert!(c.is_broken());
}

/// All connections of the server are taken.
async fn out_of_connections(cluster: &Cluster) {
    let mut held = Vec::new();
    let error = loop {
        match Connection::connect(&cluster.options("user=md5user")).await {
            Ok(connection) => held.push(connection),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Login(_)) && error.sqlstate() == Some("53300"), "{error}");
}

async fn cancelled(cluster: &Cluster) {
    let mut c = Connection::connect(&cluster.options("")).await.unwrap();
    let slow = Query { timeout: Some(Duration::from_millis(50)), ..Query::from("select pg_sleep(30)") };
    assert!(matches!(c.query(&slow).await, Err(Error::QueryTimeout)));
    assert!(!c.is_drained());
    c.cancel_token().cancel().await.unwrap();
    c.timeout = None;
    c.drain().await.unwrap();
    assert!(c.is_reusable());
    check(&mut c, "select 1", "?column?:23 [1]SELECT 1").await;
}

async fn logins(cluster: &Cluster) {
    for user in ["md5user", "plainuser", "tester"] {
        Connection::connect(&cluster.options(&format!("user={user}"))).await.unwrap();
        let error = Connection::connect(&cluster.options(&format!("user={user} password=x"))).await.unwrap_err();
        assert_eq!(error.sqlstate(), Some("28P01"), "{error}");
    }
    let failure = async |more: &str| Connection::connect(&cluster.options(more)).await.unwrap_err().to_string();
    assert_eq!(failure("dbname=nope").await, "connection failed: FATAL:  database \"nope\" does not exist");
    assert_eq!(failure("password=''").await, "connection failed: fe_sendauth: no password supplied");
    assert!(failure("sslmode=require").await.ends_with("server does not support SSL, but SSL was required"));
    assert!(failure("port=1").await.contains("connect() to 127.0.0.1:1 failed"));
    assert!(failure("client_encoding=SJIS").await.ends_with("does not allow safe quoting"));
    assert!(failure("target_session_attrs=standby").await.ends_with("server is not in hot standby mode"));
    let several = format!("host=127.0.0.1,127.0.0.1 port=1,{} target_session_attrs=primary", cluster.port);
    Connection::connect(&cluster.options(&several)).await.unwrap();
}

#[test]
fn a_silent_server_is_given_up() {
    on_worker(async {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = silent.local_addr().unwrap().port();
        let text = format!("host=127.0.0.1 port={port} connect_timeout=100ms");
        let options = Arc::new(crate::pg::conninfo::parse_conninfo(&text).unwrap());
        assert!(matches!(Connection::connect(&options).await, Err(Error::ConnectTimeout)));
    });
}

#[test]
fn tls() {
    let cluster = Cluster::start();
    cluster.with_tls();
    cluster.down();
    cluster.up();
    let root = cluster.path("ca.crt").display().to_string();
    on_worker(async {
        let connect = async |more: &str| match Connection::connect(&cluster.options(more)).await {
            Ok(mut connection) => {
                let row = ask(&mut connection, &Query::from("select 1")).await;
                assert_eq!(row, "?column?:23 [1]SELECT 1");
                if connection.is_tls() { "tls" } else { "plain" }.to_owned()
            }
            Err(error) => error.to_string(),
        };
        assert_eq!(connect("sslmode=disable").await, "plain");
        assert_eq!(connect("sslmode=allow").await, "plain");
        assert_eq!(connect("sslmode=allow user=tlsuser").await, "tls");
        assert_eq!(connect("sslmode=prefer").await, "tls");
        assert_eq!(connect("sslmode=require").await, "tls");
        assert_eq!(connect(&format!("sslmode=verify-ca sslrootcert={root}")).await, "tls");
        let full = format!("sslmode=verify-full sslrootcert={root}");
        assert_eq!(connect(&format!("{full} host=localhost hostaddr=127.0.0.1")).await, "tls");
        assert!(connect(&full).await.contains("not valid for name"), "{}", connect(&full).await);
        assert!(connect("sslmode=verify-ca").await.contains("sslrootcert is missing"));
        let mut c = Connection::connect(&cluster.options("sslmode=require")).await.unwrap();
        let slow = Query { timeout: Some(Duration::from_millis(50)), ..Query::from("select pg_sleep(30)") };
        assert!(c.query(&slow).await.is_err());
        c.cancel_token().cancel().await.unwrap();
        c.timeout = None;
        c.drain().await.unwrap();
    });
}
