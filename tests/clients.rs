//! HTTP by a client that we did not write: hyper.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use support::pushgate::Pushgate;

const CONFIG: &str = r#"
daemon off;
error_log logs/error.log info;
pid logs/nginx.pid;
events { }
http {
    push_stream_shared_memory_size 8m;
    server {
        listen 127.0.0.1:%%PORT%%;
        location = /text { return 200 "some text"; }
        location = /publisher {
            push_stream_publisher;
            push_stream_channels_path $arg_id;
        }
    }
}
"#;

type Body = BoxBody<Bytes, std::convert::Infallible>;

async fn ask(sender: &mut SendRequest<Body>, method: &str, target: &str, body: Body) -> Response<Bytes> {
    sender.ready().await.unwrap();
    let request = Request::builder().method(method).uri(target).header("Host", "localhost").body(body).unwrap();
    let (head, body) = sender.send_request(request).await.unwrap().into_parts();
    Response::from_parts(head, body.collect().await.unwrap().to_bytes())
}

fn whole(text: &'static str) -> Body {
    Full::new(Bytes::from_static(text.as_bytes())).boxed()
}

/// A body of unknown length, which goes in chunks.
fn pieces(texts: [&'static str; 3]) -> Body {
    let frames = texts.map(|text| Ok(Frame::data(Bytes::from_static(text.as_bytes()))));
    StreamBody::new(futures_util::stream::iter(frames)).boxed()
}

/// One connection carries all of it, so an answer that is framed wrongly spoils the next.
#[tokio::test(flavor = "current_thread")]
async fn one_connection_carries_requests_of_all_kinds() {
    let server = Pushgate::start(CONFIG, &[]);
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::task::spawn(connection);
    for _ in 0..3 {
        let answer = ask(&mut sender, "GET", "/text", whole("")).await;
        assert_eq!((answer.status(), &answer.body()[..]), (StatusCode::OK, &b"some text"[..]));
        let answer = ask(&mut sender, "HEAD", "/text", whole("")).await;
        assert_eq!((answer.headers()["content-length"].as_bytes(), answer.body().len()), (&b"9"[..], 0));
        let answer = ask(&mut sender, "GET", "/missing", whole("")).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
        let answer = ask(&mut sender, "POST", "/publisher?id=a", whole("counted")).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let answer = ask(&mut sender, "POST", "/publisher?id=a", pieces(["in ", "three ", "chunks"])).await;
        assert_eq!(answer.status(), StatusCode::OK);
    }
    let told = ask(&mut sender, "GET", "/publisher?id=a", whole("")).await;
    let told = String::from_utf8_lossy(told.body()).into_owned();
    assert!(told.contains("\"published_messages\": 6"), "{told}");
    drop(sender);
    connection.await.unwrap().unwrap();
}
