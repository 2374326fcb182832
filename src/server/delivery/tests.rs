//! Delivery over real sockets on the loopback, with clients that we did not write where it matters.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::RefCell;
use std::future::Future;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Tungstenite;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::hub::channel::Start;
use crate::hub::inbox::WorkerId;
use crate::hub::limits::{Limits, Refused};
use crate::hub::message::{Draft, Message, RenderingKey};
use crate::hub::{Hub, PublishOptions};
use crate::server::delivery::frame::{self, Opcode};
use crate::server::delivery::subscriber::{
    Closed, Farewell, NewSubscriber, Protocol, Reason, Rendering, Settings, SubscriberEvents, SubscriberId,
};
use crate::server::delivery::{Clock, Delivery};

const PATIENCE: Duration = Duration::from_secs(60);
const OPTIONS: PublishOptions = PublishOptions { store: true, create: true };

struct RealTime(Instant);

impl Clock for RealTime {
    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }

    fn seconds(&self) -> u64 {
        1_000_000 + self.0.elapsed().as_secs()
    }
}

/// A text frame with channel and text.
struct Labelled(RenderingKey);

impl Rendering for Labelled {
    fn key(&self) -> RenderingKey {
        self.0
    }

    fn render(&self, message: &Message) -> Bytes {
        frame::text(format!("{}:{}", message.channel, String::from_utf8_lossy(message.text())).as_bytes())
    }
}

/// The text as it is.
struct Raw(RenderingKey);

impl Rendering for Raw {
    fn key(&self) -> RenderingKey {
        self.0
    }

    fn render(&self, message: &Message) -> Bytes {
        message.text().clone()
    }
}

/// Writes down what it is told, and pauses on every message for a moment.
struct Diary {
    entries: RefCell<Vec<String>>,
    pause_with: RefCell<Option<Rc<Delivery>>>,
}

impl SubscriberEvents for Diary {
    fn message(&self, subscriber: SubscriberId, opcode: Opcode, payload: Bytes) {
        let text = String::from_utf8_lossy(&payload[..payload.len().min(20)]).into_owned();
        assert_ne!(text, "program error");
        self.entries.borrow_mut().push(format!("{opcode:?} {text}"));
        if let Some(delivery) = self.pause_with.borrow().clone() {
            delivery.pause_reading(subscriber);
            tokio::task::spawn_local(async move {
                tokio::task::yield_now().await;
                delivery.send(subscriber, frame::text(text.as_bytes()));
                delivery.resume_reading(subscriber);
            });
        }
    }

    fn closed(&self, _: SubscriberId, closed: Closed) {
        let left: Vec<_> = closed
            .left
            .iter()
            .map(|left| format!("{} {}", left.channel, left.unsubscribed.is_some_and(|left| left.last_of_all)))
            .collect();
        self.entries.borrow_mut().push(format!("closed {:?} {}", closed.reason, left.join(", ")));
    }
}

/// One worker's delivery, running, and what a test needs around it.
struct World {
    hub: Arc<Hub>,
    delivery: Rc<Delivery>,
    diary: Rc<Diary>,
    rendering: Rc<dyn Rendering>,
    listener: TcpListener,
}

fn world<Test: Future<Output = ()>>(limits: Limits, test: impl FnOnce(Rc<World>) -> Test) {
    worker(Arc::new(Hub::new(limits)), 0, test);
}

fn worker<Test: Future<Output = ()>>(hub: Arc<Hub>, number: u16, test: impl FnOnce(Rc<World>) -> Test) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let clock = Rc::new(RealTime(Instant::now()));
        let delivery = Delivery::new(Arc::clone(&hub), WorkerId(number), clock).unwrap();
        let delivery = Rc::new(delivery);
        let running = Rc::clone(&delivery);
        let task = tokio::task::spawn_local(async move { running.run().await });
        let world = Rc::new(World {
            hub,
            delivery,
            diary: Rc::new(Diary { entries: RefCell::default(), pause_with: RefCell::default() }),
            rendering: Rc::new(Labelled(RenderingKey::fresh())),
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
        });
        timeout(PATIENCE, test(world)).await.unwrap();
        assert!(!task.is_finished());
        task.abort();
    });
}

impl World {
    fn websocket(&self) -> Settings {
        Settings {
            protocol: Protocol::Websocket { max_message_size: 1000, deflate: false },
            rendering: Rc::clone(&self.rendering),
            ping: None,
            ttl: None,
            queue_bound: 1 << 20,
            send_timeout: Duration::from_secs(60),
            footer: Bytes::new(),
        }
    }

    fn subscribe(&self, channels: &[(&str, Start)], settings: Rc<Settings>) -> Result<SubscriberId, Refused> {
        let channels: Vec<_> = channels.iter().map(|(id, start)| (id.as_bytes(), start.clone())).collect();
        let events: Rc<dyn SubscriberEvents> = Rc::clone(&self.diary) as _;
        let new = NewSubscriber { channels: &channels, create: true, settings, greeting: Bytes::new(), events };
        self.delivery.subscribe(new).map(|subscription| subscription.id)
    }

    fn adopt(&self, id: SubscriberId, leftover: &'static [u8]) -> TcpStream {
        let client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        let (server, _) = self.listener.accept().unwrap();
        self.delivery.adopt(id, std::os::fd::OwnedFd::from(server), Bytes::from_static(leftover)).unwrap();
        client
    }

    /// A subscriber of some channels, from now on.
    fn join(&self, channels: &[&str], settings: Settings) -> (SubscriberId, TcpStream) {
        let channels: Vec<_> = channels.iter().map(|id| (*id, Start::New)).collect();
        let id = self.subscribe(&channels, Rc::new(settings)).unwrap();
        (id, self.adopt(id, b""))
    }

    fn publish(&self, channel: &str, text: &str) {
        self.hub.publish(channel.as_bytes(), Draft::text(text.to_owned()), 1, OPTIONS).unwrap();
    }

    /// Waits until the diary says what is expected.
    async fn diary_says(&self, expected: &[&str]) {
        while self.diary.entries.borrow().len() < expected.len() {
            tokio::task::yield_now().await;
        }
        assert_eq!(*self.diary.entries.borrow(), expected);
    }

    /// Waits until nobody is there, and nothing is left of anybody.
    async fn is_empty(&self) {
        while !self.delivery.is_empty() || self.delivery.leaving() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(self.hub.summary().subscribers, 0);
        assert!(self.hub.statistics_of_prefix(b"", 1).iter().all(|channel| channel.subscribers == 0));
    }
}

fn asynchronous(client: TcpStream) -> tokio::net::TcpStream {
    client.set_nonblocking(true).unwrap();
    tokio::net::TcpStream::from_std(client).unwrap()
}

async fn tungstenite(client: TcpStream) -> WebSocketStream<tokio::net::TcpStream> {
    WebSocketStream::from_raw_socket(asynchronous(client), Role::Client, None).await
}

async fn next(client: &mut WebSocketStream<tokio::net::TcpStream>) -> String {
    match client.next().await {
        Some(Ok(Tungstenite::Text(text))) => text.to_string(),
        Some(Ok(Tungstenite::Close(close))) => close
            .map_or_else(|| "close".to_owned(), |close| format!("close {} {}", u16::from(close.code), close.reason)),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_thousand_subscribers_get_a_thousand_messages_in_order() {
    world(Limits::default(), |world| async move {
        let settings = Rc::new(world.websocket());
        let mut clients = Vec::new();
        for _ in 0..1000 {
            let id = world.subscribe(&[("x", Start::New)], Rc::clone(&settings)).unwrap();
            clients.push(world.adopt(id, b""));
        }
        let expected: Vec<u8> = (0..1000).flat_map(|n| frame::text(format!("x:message {n}").as_bytes())).collect();
        let readers: Vec<_> = (0..4)
            .map(|part| {
                let mut clients = clients.split_off(clients.len() - 250);
                let expected = expected.clone();
                assert_eq!(clients.len(), 250, "{part}");
                std::thread::spawn(move || {
                    for client in &mut clients {
                        let mut got = vec![0; expected.len()];
                        client.read_exact(&mut got).unwrap();
                        assert!(got == expected);
                    }
                    clients
                })
            })
            .collect();
        let hub = Arc::clone(&world.hub);
        let publisher = std::thread::spawn(move || {
            for n in 0..1000 {
                hub.publish(b"x", Draft::text(format!("message {n}")), 1, OPTIONS).unwrap();
                if n % 10 == 0 {
                    std::thread::yield_now();
                }
            }
        });
        while !publisher.is_finished() || !readers.iter().all(std::thread::JoinHandle::is_finished) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let clients: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        assert_eq!(world.delivery.len(), 1000);
        drop(clients);
        world.is_empty().await;
        assert_eq!(world.hub.dropped().slow_clients.count(), 0);
    });
}

#[test]
fn joining_in_the_middle_of_a_burst_there_is_no_gap_and_no_duplicate() {
    world(Limits::default(), |world| async move {
        let settings = Rc::new(world.websocket());
        let (_, first) = world.join(&["x"], world.websocket());
        let mut clients = Vec::new();
        for n in 0..300 {
            world.publish("x", &n.to_string());
            if n % 3 == 0 {
                // The one before is in the inbox of the worker, and in the history.
                let starts = [("x", Start::Backtrack(2)), ("other", Start::New)];
                let id = world.subscribe(&starts[..1 + n % 2], Rc::clone(&settings)).unwrap();
                clients.push((n.saturating_sub(1), id));
            }
            if n % 50 == 0 {
                tokio::task::yield_now().await;
            }
        }
        let adopted = clients.into_iter().map(|(from, id)| (from, world.adopt(id, b"")));
        for (from, client) in adopted.chain([(0, first)]) {
            let expected: Vec<u8> = (from..300).flat_map(|n| frame::text(format!("x:{n}").as_bytes())).collect();
            let mut got = vec![0; expected.len()];
            let mut client = asynchronous(client);
            client.read_exact(&mut got).await.unwrap();
            assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(&expected), "from {from}");
        }
    });
}

#[test]
fn one_who_does_not_read_is_closed_and_the_others_get_all() {
    world(Limits::default(), |world| async move {
        let bounded = || Settings { queue_bound: 256 * 1024, ..world.websocket() };
        let (_, stalled) = world.join(&["x"], bounded());
        let (_, cut) =
            world.join(&["x"], Settings { protocol: Protocol::Stream { ending: Bytes::new() }, ..bounded() });
        let mut others = Vec::new();
        for _ in 0..5 {
            others.push(tungstenite(world.join(&["x"], bounded()).1).await);
        }
        let text = "t".repeat(64 * 1024);
        for n in 0..200 {
            world.publish("x", &format!("{n} {text}"));
            for other in &mut others {
                assert!(next(other).await.starts_with(&format!("x:{n} ")));
            }
        }
        world.diary_says(&["closed Slow x false", "closed Slow x false"]).await;
        assert_eq!(world.hub.dropped().slow_clients.count(), 2);
        assert!(world.hub.dropped().unsent.count() >= 2);
        // It reads at last: whole frames, in order, and then why there are no more.
        let mut stalled = tungstenite(stalled).await;
        let mut got = 0;
        let end = loop {
            match next(&mut stalled).await {
                message if message.starts_with("x:") => {
                    assert!(message.starts_with(&format!("x:{got} ")));
                    got += 1;
                }
                end => break end,
            }
        };
        assert!(got > 0);
        assert_eq!(end, "close 1013 too slow: messages were waiting");
        drop((cut, others, stalled));
        world.is_empty().await;
    });
}

#[test]
fn a_large_message_or_backlog_alone_makes_nobody_slow() {
    world(Limits::default(), |world| async move {
        let text = "t".repeat(1 << 20);
        (0..4).for_each(|_| world.publish("x", &text));
        let settings = Rc::new(Settings { queue_bound: 1000, ..world.websocket() });
        let id = world.subscribe(&[("x", Start::Backtrack(9))], settings).unwrap();
        let mut client = tungstenite(world.adopt(id, b"")).await;
        world.publish("x", "one more");
        for _ in 0..4 {
            assert_eq!(next(&mut client).await.len(), text.len() + 2);
        }
        assert_eq!(next(&mut client).await, "x:one more");
        world.publish("x", &text);
        assert_eq!(next(&mut client).await.len(), text.len() + 2);
    });
}

#[test]
fn bad_frames_get_the_right_codes() {
    let zeros = |head: &[u8], count: usize| [head, &vec![0; count]].concat();
    let cases = [
        (b"\x81\x01x".to_vec(), 1002),
        (b"\x09\x80\0\0\0\0".to_vec(), 1002),
        (b"\x83\x80\0\0\0\0".to_vec(), 1002),
        (b"\xC1\x80\0\0\0\0".to_vec(), 1002),
        (b"\x81\x81\0\0\0\0\xFF".to_vec(), 1007),
        (zeros(b"\x82\xFE\x03\xE9\0\0\0\0", 1001), 1009),
        (b"\x82\xFF\0\0\0\xFF\0\0\0\0\0\0\0\0".to_vec(), 1009),
        (b"\x88\x82\0\0\0\0\x0F\xA0".to_vec(), 4000),
    ];
    world(Limits::default(), |world| async move {
        for (bytes, code) in &cases {
            let (_, client) = world.join(&["x"], world.websocket());
            let mut client = asynchronous(client);
            client.write_all(bytes).await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            assert_eq!((answer[0], &answer[2..4]), (0x88, &u16::to_be_bytes(*code)[..]), "{bytes:?}");
        }
        world.is_empty().await;
        let violations = world.diary.entries.borrow().iter().filter(|entry| entry.contains("Violation")).count();
        assert_eq!((world.diary.entries.borrow().len(), violations), (8, 7));
    });
}

#[test]
fn messages_of_a_client_wait_for_one_another() {
    world(Limits::default(), |world| async move {
        *world.diary.pause_with.borrow_mut() = Some(Rc::clone(&world.delivery));
        let id = world.subscribe(&[("x", Start::New)], Rc::new(world.websocket())).unwrap();
        // A message came with the handshake, half of another too.
        let mut client = tungstenite(world.adopt(id, b"\x81\x82\0\0\0\0m0\x81\x82\0\0\0\0m")).await;
        client.get_mut().write_all(b"1").await.unwrap();
        for n in 2..50 {
            client.feed(Tungstenite::text(format!("m{n}"))).await.unwrap();
        }
        client.flush().await.unwrap();
        // The last comes in halves, and reading is paused in the middle of it.
        let bytes = b"\x81\x83\0\0\0\0m50";
        client.get_mut().write_all(&bytes[..7]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.delivery.pause_reading(id);
        client.get_mut().write_all(&bytes[7..]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.delivery.resume_reading(id);
        client.send(Tungstenite::Ping(Bytes::from("p"))).await.unwrap();
        for n in 0..=50 {
            assert_eq!(next(&mut client).await, format!("m{n}"));
        }
        assert_eq!(next(&mut client).await, r#"Some(Ok(Pong(b"p")))"#);
        client.close(None).await.unwrap();
        assert_eq!(next(&mut client).await, "close");
        *world.diary.pause_with.borrow_mut() = None;
        world.is_empty().await;
        assert_eq!(world.diary.entries.borrow().last().unwrap(), "closed Client x true");
    });
}

#[test]
fn one_who_takes_nothing_for_too_long_is_cut() {
    world(Limits::default(), |world| async move {
        let settings =
            Settings { queue_bound: usize::MAX, send_timeout: Duration::from_millis(200), ..world.websocket() };
        let (_, client) = world.join(&["x"], settings);
        let text = "t".repeat(1 << 20);
        (0..16).for_each(|_| world.publish("x", &text));
        world.diary_says(&["closed Slow x true"]).await;
        world.is_empty().await;
        assert_eq!(world.hub.dropped().slow_clients.count(), 1);
        drop(client);
    });
}

#[test]
fn one_who_never_stops_sending_starves_nobody() {
    world(Limits::default(), |world| async move {
        let (_, mut flood) = world.join(&["flood"], world.websocket());
        let pongs = b"\x8A\x80\0\0\0\0".repeat(10_000);
        let stop = flood.try_clone().unwrap();
        let flooding = std::thread::spawn(move || while flood.write_all(&pongs).is_ok() {});
        let mut client = tungstenite(world.join(&["x"], world.websocket()).1).await;
        for n in 0..100 {
            world.publish("x", &n.to_string());
            assert_eq!(next(&mut client).await, format!("x:{n}"));
        }
        assert!(!flooding.is_finished());
        world.delivery.shutdown(Farewell::Plain);
        assert_eq!(next(&mut client).await, "close");
        stop.shutdown(std::net::Shutdown::Both).unwrap();
        flooding.join().unwrap();
        drop((client, stop));
        world.is_empty().await;
    });
}

#[test]
fn several_channels_keep_their_order_and_deletion_ends_the_last() {
    world(Limits::default(), |world| async move {
        let mut client = tungstenite(world.join(&["x", "y", "x"], world.websocket()).1).await;
        for (channel, text) in [("x", "1"), ("y", "2"), ("x", "3")] {
            world.publish(channel, text);
        }
        for expected in ["x:1", "y:2", "x:3"] {
            assert_eq!(next(&mut client).await, expected);
        }
        world.hub.delete(b"x", Draft::text("deleted"), 1);
        world.publish("x", "a new life that nobody asked for");
        world.publish("y", "still here");
        assert_eq!(next(&mut client).await, "x:deleted");
        assert_eq!(next(&mut client).await, "y:still here");
        world.hub.delete(b"y", Draft::text("deleted"), 1);
        assert_eq!(next(&mut client).await, "y:deleted");
        assert_eq!(next(&mut client).await, "close");
        drop(client);
        world.is_empty().await;
        world.diary_says(&["closed ChannelDeleted y false"]).await;
    });
}

#[test]
fn an_error_of_the_program_ends_one_subscriber() {
    world(Limits::default(), |world| async move {
        let mut unlucky = tungstenite(world.join(&["x"], world.websocket()).1).await;
        let mut other = tungstenite(world.join(&["x"], world.websocket()).1).await;
        unlucky.send("program error".into()).await.unwrap();
        assert_eq!(next(&mut unlucky).await, "close 1011 internal error");
        world.publish("x", "goes on");
        assert_eq!(next(&mut other).await, "x:goes on");
        world.delivery.shutdown(Farewell::Plain);
        drop((unlucky, other));
        world.is_empty().await;
    });
}

#[test]
fn a_stream_gets_pings_and_its_ending() {
    world(Limits::default(), |world| async move {
        let settings = Settings {
            protocol: Protocol::Stream { ending: Bytes::from("end") },
            rendering: Rc::new(Raw(RenderingKey::fresh())),
            ping: Some((Duration::from_millis(200), Bytes::from("."))),
            ttl: Some(Duration::from_millis(500)),
            ..world.websocket()
        };
        let (_, client) = world.join(&["x"], settings);
        world.publish("x", "text ");
        let mut got = String::new();
        let mut client = asynchronous(client);
        client.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "text ..end");
        drop(client);
        world.is_empty().await;
        world.diary_says(&["closed Ttl x true"]).await;
    });
}

#[test]
fn words_before_the_socket_are_not_lost() {
    world(Limits::default(), |world| async move {
        let id = world.subscribe(&[("x", Start::New)], Rc::new(world.websocket())).unwrap();
        world.publish("x", "early");
        tokio::task::yield_now().await;
        world.delivery.close(id, Farewell::Code(1008, "no such channel"));
        tokio::task::yield_now().await;
        let mut client = tungstenite(world.adopt(id, b"")).await;
        assert_eq!(next(&mut client).await, "x:early");
        assert_eq!(next(&mut client).await, "close 1008 no such channel");
        let abandoned = world.subscribe(&[("x", Start::New)], Rc::new(world.websocket())).unwrap();
        world.delivery.abandon(abandoned);
        drop(client);
        world.is_empty().await;
        world.diary_says(&["closed Asked x true", "closed Broken x true"]).await;
    });
}

#[test]
fn a_refused_channel_leaves_nothing_of_the_others() {
    let limits = Limits { max_subscribers_per_channel: Some(1), ..Limits::default() };
    world(limits, |world| async move {
        let (_, client) = world.join(&["full"], world.websocket());
        let refused = world.subscribe(&[("x", Start::New), ("full", Start::New)], Rc::new(world.websocket()));
        assert_eq!(refused, Err(Refused::TooManySubscribers));
        assert_eq!((world.delivery.len(), world.hub.statistics(b"x", 1).unwrap().subscribers), (1, 0));
        drop(client);
        world.is_empty().await;
    });
}

#[test]
fn coming_and_going_leaves_nothing() {
    world(Limits::default(), |world| async move {
        let settings = Rc::new(Settings { ping: Some((PATIENCE, Bytes::new())), ..world.websocket() });
        let mut kept = Vec::new();
        for n in 0..2000 {
            let starts = [(["a", "b", "c"][n % 3], Start::New), ("d", Start::New)];
            let id = world.subscribe(&starts[..1 + n % 2], Rc::clone(&settings)).unwrap();
            let client = world.adopt(id, b"");
            if n % 100 == 0 {
                kept.push((n, client));
            }
            if n % 10 == 0 {
                world.publish("a", "to those who come and go");
                tokio::task::yield_now().await;
            }
        }
        while world.delivery.len() > kept.len() || world.delivery.leaving() > 0 {
            tokio::task::yield_now().await;
        }
        for (_, client) in &kept {
            let mut everything = [0; 65536];
            client.set_nonblocking(true).unwrap();
            let mut client = client;
            while client.read(&mut everything).is_ok() {}
        }
        ["a", "b", "c"].iter().for_each(|channel| world.publish(channel, "last"));
        for (n, client) in kept {
            assert_eq!(next(&mut tungstenite(client).await).await, format!("{}:last", ["a", "b", "c"][n % 3]));
        }
        world.is_empty().await;
    });
}

#[test]
fn shutdown_says_farewell_to_all() {
    world(Limits::default(), |world| async move {
        let mut clients = Vec::new();
        for _ in 0..50 {
            clients.push(tungstenite(world.join(&["x"], world.websocket()).1).await);
        }
        world.delivery.shutdown(Farewell::Code(1012, "restart"));
        for client in &mut clients {
            assert_eq!(next(client).await, "close 1012 restart");
        }
        drop(clients);
        world.is_empty().await;
        assert!(
            world.diary.entries.borrow().iter().all(|entry| entry.starts_with(&format!("closed {:?}", Reason::Asked)))
        );
    });
}

#[test]
fn two_workers_see_one_channel_alike() {
    let hub = Arc::new(Hub::new(Limits::default()));
    let workers = [0, 1].map(|number| {
        let hub = Arc::clone(&hub);
        std::thread::spawn(move || {
            let mut got = Vec::new();
            worker(hub, number, async |world| {
                let mut client = tungstenite(world.join(&["x"], world.websocket()).1).await;
                while got.len() < 2000 {
                    got.push(next(&mut client).await);
                }
            });
            got
        })
    });
    while hub.statistics(b"x", 1).is_none_or(|channel| channel.subscribers < 2) {
        std::thread::yield_now();
    }
    std::thread::scope(|scope| {
        for publisher in 0..2 {
            let hub = &hub;
            scope.spawn(move || {
                for n in 0..1000 {
                    hub.publish(b"x", Draft::text(format!("{publisher} {n}")), 1, OPTIONS).unwrap();
                }
            });
        }
    });
    let got = workers.map(|worker| worker.join().unwrap());
    assert!(got[0] == got[1]);
    for publisher in ["x:0 ", "x:1 "] {
        let theirs = got[0].iter().filter_map(|text| text.strip_prefix(publisher)?.parse::<u32>().ok());
        assert!(theirs.eq(0..1000));
    }
}
