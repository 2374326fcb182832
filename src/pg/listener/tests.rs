//! Against a PostgreSQL of their own.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::HashSet;
use std::sync::Mutex;

use tokio::time::{Instant, sleep};

use super::*;
use crate::pg::sql::quote_identifier;
use crate::pg::testing::{Cluster, on_worker};

/// A listener with everything it says.
struct Ear {
    listener: Listener,
    heard: Arc<Mutex<Vec<Notification>>>,
    events: Arc<Mutex<Vec<Event>>>,
    interest: Arc<Mutex<HashSet<String>>>,
}

impl Ear {
    fn new(options: ListenerOptions) -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let events = Arc::new(Mutex::new(Vec::new()));
        let interest = Arc::new(Mutex::new(HashSet::new()));
        let (to_heard, to_events, subscribed) = (Arc::clone(&heard), Arc::clone(&events), Arc::clone(&interest));
        let (listener, task) = listener(
            options,
            Arc::new(move |name| subscribed.lock().unwrap().contains(name)),
            Arc::new(move |notification| to_heard.lock().unwrap().push(notification)),
            Arc::new(move |event| to_events.lock().unwrap().push(event)),
        );
        tokio::spawn(task);
        Self { listener, heard, events, interest }
    }

    fn subscribe(&self, name: &str) -> Reply {
        self.interest.lock().unwrap().insert(name.to_owned());
        self.listener.listen(name)
    }

    fn leave(&self, name: &str) -> Reply {
        self.interest.lock().unwrap().remove(name);
        self.listener.unlisten(name)
    }

    /// Waits until so many were heard, and takes them.
    async fn hear(&self, count: usize) -> Vec<String> {
        until(|| self.heard.lock().unwrap().len() >= count).await;
        let heard = std::mem::take(&mut *self.heard.lock().unwrap());
        heard.into_iter().map(|notification| format!("{}={}", notification.channel, notification.payload)).collect()
    }
}

async fn until(what: impl Fn() -> bool) {
    for _ in 0..4000 {
        if what() {
            return;
        }
        sleep(Duration::from_millis(5)).await;
    }
    panic!("it did not happen");
}

fn options(cluster: &Cluster) -> ListenerOptions {
    ListenerOptions::new(vec![cluster.options("")])
}

#[test]
fn listens_and_unlistens() {
    let cluster = Cluster::start();
    on_worker(async {
        let ear = Ear::new(options(&cluster));
        let long = "k".repeat(63);
        let names = ["plain", "MixedCase", "a b", "a\"b", "a\\b", "o'hara", "канал", "select", "x\";--", &long];
        for name in names {
            ear.subscribe(name).await.unwrap();
            cluster.psql(&format!("notify {}, 'it''s {name}'", quote_identifier(name)).replace("s o'h", "s o''h"));
            assert_eq!(ear.hear(1).await, [format!("{name}=it's {name}")]);
        }
        assert_eq!(ear.listener.listen("").await, Err(ListenError::Empty));
        assert_eq!(ear.listener.listen("a\0b").await, Err(ListenError::Nul));
        assert_eq!(ear.listener.listen(&"k".repeat(64)).await, Err(ListenError::TooLong(64)));

        for _ in 0..100 {
            cluster.psql("notify plain, 'same'; ");
        }
        cluster.psql("notify plain");
        let heard = ear.hear(101).await;
        assert!(heard[..100].iter().all(|text| text == "plain=same") && heard[100] == "plain=");

        // Somebody else is still there, so it stays listened to.
        ear.listener.unlisten("plain").await.unwrap();
        cluster.psql("notify plain, '1'");
        assert_eq!(ear.hear(1).await, ["plain=1"]);
        ear.leave("plain").await.unwrap();
        cluster.psql("notify plain, '2'; notify \"MixedCase\", '3'");
        assert_eq!(ear.hear(1).await, ["MixedCase=3"]);
        // A quick leave and return is in order, whoever waits for what.
        let replies = (ear.leave("MixedCase"), ear.subscribe("MixedCase"));
        assert_eq!((replies.0.await, replies.1.await), (Ok(()), Ok(())));
        cluster.psql("notify \"MixedCase\", '4'");
        assert_eq!(ear.hear(1).await, ["MixedCase=4"]);
        ear.interest.lock().unwrap().clear();
        ear.listener.unlisten_all().await.unwrap();
        until(|| ear.listener.status().channels == 0).await;
        let status = ear.listener.status();
        assert!(status.connected && status.notifications == 114 && status.reconnects == 0, "{status:?}");
    });
}

#[test]
fn many_channels_are_a_few_round_trips() {
    let cluster = Cluster::start();
    on_worker(async {
        let ear = Ear::new(options(&cluster));
        let began = Instant::now();
        let replies: Vec<Reply> = (0..3000).map(|number| ear.subscribe(&format!("c{number}"))).collect();
        for reply in replies {
            reply.await.unwrap();
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert_eq!(ear.listener.status().channels, 3000);
        cluster.psql("select pg_notify('c' || i, i::text) from generate_series(0, 2999) i");
        assert_eq!(ear.hear(3000).await.len(), 3000);
    });
}

#[test]
fn comes_back_after_the_server_and_was_there_before_it() {
    let cluster = Cluster::stopped();
    on_worker(async {
        let ear = Ear::new(options(&cluster));
        let early = ear.subscribe("early");
        until(|| !ear.events.lock().unwrap().is_empty()).await;
        cluster.up();
        early.await.unwrap();
        ear.subscribe("late").await.unwrap();
        for round in 1..=2 {
            cluster.down();
            until(|| !ear.listener.status().connected).await;
            let waiting = ear.subscribe(&format!("while down {round}"));
            cluster.up();
            let back = Instant::now();
            waiting.await.unwrap();
            until(|| ear.listener.status().channels == 2 + round).await;
            assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
            cluster.psql("notify early, 'a'; notify late, 'b'");
            assert_eq!(ear.hear(2).await, ["early=a", "late=b"]);
        }
        until(|| ear.events.lock().unwrap().len() == 6).await;
        let events = ear.events.lock().unwrap();
        let shapes: Vec<String> = events
            .iter()
            .map(|event| match event {
                Event::Down { channels, .. } => format!("down {channels}"),
                Event::Up { channels, again } => format!("up {channels} {again}"),
                Event::Refused { channel, error } => format!("refused {channel} {error}"),
                Event::Pooled { by_transaction } => format!("pooled {by_transaction}"),
            })
            .collect();
        assert_eq!(shapes, ["down 1", "up 1 false", "down 2", "up 3 true", "down 3", "up 4 true"]);
        assert_eq!(ear.listener.status().reconnects, 2);
    });
}

#[test]
fn a_deaf_connection_is_found() {
    let cluster = Cluster::start();
    on_worker(async {
        // A path that swallows everything the server says once it is told to.
        let silent = Arc::new(AtomicBool::new(false));
        let proxy = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = proxy.local_addr().unwrap().port();
        let (swallow, target) = (Arc::clone(&silent), cluster.port);
        tokio::spawn(async move {
            while let Ok((client, _)) = proxy.accept().await {
                let swallow = Arc::clone(&swallow);
                tokio::spawn(async move { forward(client, target, &swallow).await });
            }
        });
        let mut options = ListenerOptions::new(vec![cluster.options(&format!("port={port}"))]);
        options.canary = Some(Duration::from_millis(100));
        options.canary_timeout = Duration::from_millis(300);
        let ear = Ear::new(options);
        ear.subscribe("c").await.unwrap();
        until(|| ear.listener.status().canary_round_trip.is_some()).await;
        silent.store(true, Relaxed);
        until(|| !ear.listener.status().connected).await;
        silent.store(false, Relaxed);
        until(|| ear.listener.status().channels == 1).await;
        cluster.psql("notify c, 'x'");
        assert_eq!(ear.hear(1).await, ["c=x"]);
        assert!(ear.listener.status().reconnects >= 1);
    });
}

async fn forward(client: tokio::net::TcpStream, port: u16, swallow: &AtomicBool) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = tokio::io::copy(&mut from_client, &mut to_server);
    let down = async {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
            if !swallow.load(Relaxed) && to_client.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! { _ = up => {} () = down => {} }
}

#[test]
fn a_wrong_password_is_said_once() {
    let cluster = Cluster::start();
    on_worker(async {
        let ear = Ear::new(ListenerOptions::new(vec![cluster.options("password=wrong")]));
        until(|| !ear.events.lock().unwrap().is_empty()).await;
        sleep(Duration::from_millis(300)).await;
        let events = ear.events.lock().unwrap();
        let [Event::Down { reason, .. }] = &events[..] else { panic!("{events:?}") };
        assert!(reason.contains("password authentication failed"), "{reason}");
    });
}
