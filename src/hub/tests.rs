//! The hub with a simulated clock.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use proptest::prelude::*;

use crate::hub::channel::Start;
use crate::hub::inbox::{Entry, Inbox, Wake, WorkerId};
use crate::hub::limits::{Limits, Refused};
use crate::hub::message::{DELETED, Draft};
use crate::hub::{Hub, PublishOptions};

const STORE: PublishOptions = PublishOptions { store: true, create: true };
const PASS: PublishOptions = PublishOptions { store: false, create: true };

/// Counts how often its worker was woken.
struct Count(Arc<AtomicUsize>);

impl Wake for Count {
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn worker(hub: &Hub, number: u16) -> (Arc<Inbox>, Arc<AtomicUsize>) {
    let wakes = Arc::new(AtomicUsize::new(0));
    (hub.add_worker(WorkerId(number), Box::new(Count(Arc::clone(&wakes)))), wakes)
}

fn publish(hub: &Hub, id: &str, text: &str, now: u64) {
    hub.publish(id.as_bytes(), Draft::text(text.to_owned()), now, STORE).unwrap();
}

/// The stored texts of a channel from a start.
fn stored(hub: &Hub, id: &str, start: &Start, now: u64) -> String {
    let history = hub.history(id.as_bytes(), start, now).unwrap_or_default();
    history.iter().map(|message| String::from_utf8_lossy(message.text())).collect::<Vec<_>>().join(" ")
}

const ALL: Start = Start::Backtrack(usize::MAX);

#[test]
fn history_begins_where_asked() {
    let hub = Hub::new(Limits::default());
    for (text, time) in [("a", 10), ("b", 10), ("c", 11)] {
        publish(&hub, "x", text, time);
    }
    let check = |start, expected| assert_eq!(stored(&hub, "x", &start, 11), expected, "{start:?}");
    check(Start::New, "");
    check(Start::Backtrack(0), "");
    check(Start::Backtrack(2), "b c");
    check(Start::Backtrack(99), "a b c");
    check(Start::After { time: 0, tag: None }, "a b c");
    check(Start::After { time: 10, tag: None }, "c");
    check(Start::After { time: 10, tag: Some(0) }, "a b c");
    check(Start::After { time: 10, tag: Some(1) }, "b c");
    check(Start::After { time: 10, tag: Some(2) }, "c");
    check(Start::After { time: 11, tag: Some(1) }, "");
}

#[test]
fn event_ids_find_their_first_message() {
    let hub = Hub::new(Limits::default());
    for id in ["a", "b", "a", "c"] {
        let draft =
            Draft { is_binary: false, text: Bytes::from(id), event_id: Some(Bytes::from(id)), event_type: None };
        hub.publish(b"x", draft, 1, STORE).unwrap();
    }
    let check = |id, expected| assert_eq!(stored(&hub, "x", &Start::AfterEvent(Bytes::from_static(id)), 1), expected);
    check(b"a", "b a c");
    check(b"b", "a c");
    check(b"c", "");
    check(b"nope", "");
}

#[test]
fn tags_count_within_a_second_over_all_channels() {
    let hub = Hub::new(Limits::default());
    let stamp = |id: &[u8], now| {
        let message = hub.publish(id, Draft::default(), now, PASS).unwrap().message;
        (message.id, message.time, message.tag)
    };
    assert_eq!(stamp(b"a", 10), (1, 10, 1));
    assert_eq!(stamp(b"b", 10), (1, 10, 2));
    assert_eq!(stamp(b"a", 10), (2, 10, 3));
    assert_eq!(stamp(b"a", 11), (3, 11, 1));
    assert_eq!(stamp(b"a", 9), (4, 11, 2), "time does not go back");
}

#[test]
fn limits_refuse_and_are_counted() {
    let hub = Hub::new(Limits {
        max_channels: Some(1),
        max_wildcard_channels: Some(1),
        max_subscribers_per_channel: Some(1),
        max_channel_id_length: Some(4),
        wildcard_prefix: Some(Bytes::from("w_")),
        ..Limits::default()
    });
    let (inbox, _) = worker(&hub, 0);
    let join = |id: &[u8], create| hub.subscribe(&inbox, id, &Start::New, create, 0).map(|joined| joined.created);
    assert_eq!(join(b"12345", true), Err(Refused::IdTooLong));
    assert_eq!(join(b"a", false), Err(Refused::NoSuchChannel));
    assert_eq!(join(b"a", true), Ok(true));
    assert_eq!(join(b"a", true), Err(Refused::TooManySubscribers));
    assert_eq!(join(b"b", true), Err(Refused::TooManyChannels));
    assert_eq!(join(b"w_1", true), Ok(true));
    assert_eq!(join(b"w_2", true), Err(Refused::TooManyChannels));
    let only_existing = PublishOptions { store: true, create: false };
    let refused = hub.publish(b"none", Draft::default(), 0, only_existing).unwrap_err();
    assert_eq!(refused, Refused::NoSuchChannel);
    assert_eq!(hub.dropped().refused.count(), 4);
    assert!(hub.delete(b"a", Draft::default(), 0));
    assert_eq!(join(b"b", true), Ok(true), "the deleted channel makes room");
    assert!(!hub.delete(b"a", Draft::default(), 0));
}

#[test]
fn stored_messages_are_bounded_by_count_and_age() {
    let limits = Limits { max_stored_per_channel: Some(2), message_ttl: Some(10), ..Limits::default() };
    let hub = Hub::new(limits);
    for (text, time) in [("a", 1), ("b", 2), ("c", 3)] {
        publish(&hub, "x", text, time);
    }
    publish(&hub, "y", "d", 4);
    assert_eq!(stored(&hub, "x", &ALL, 3), "b c");
    assert_eq!(stored(&hub, "x", &ALL, 12), "c");
    assert_eq!(hub.statistics(b"x", 13).unwrap().stored, 0);
    hub.expire(100);
    assert_eq!(hub.summary().stored, 0);
    assert_eq!((hub.dropped().overflow.count(), hub.dropped().expired.count()), (1, 3));
    assert_eq!(hub.statistics(b"x", 100).unwrap().published, 3);
}

#[test]
fn memory_evicts_the_oldest_of_all_channels() {
    let hub = Hub::new(Limits { memory: Some(100_000), ..Limits::default() });
    for number in 0..400 {
        publish(&hub, ["x", "y", "z"][number % 3], &format!("{number} {}", "t".repeat(1000)), number as u64);
    }
    let summary = hub.summary();
    assert!(summary.memory <= 100_000 && summary.memory > 90_000, "{summary:?}");
    assert_eq!(hub.dropped().evicted.count(), 400 - summary.stored as u64);
    let mut numbers: Vec<usize> = ["x", "y", "z"]
        .iter()
        .flat_map(|id| hub.history(id.as_bytes(), &ALL, 400).unwrap())
        .map(|message| String::from_utf8_lossy(message.text()).split(' ').next().unwrap().parse().unwrap())
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (400 - summary.stored..400).collect::<Vec<_>>());
    for id in [b"x", b"y", b"z"] {
        hub.delete(id, Draft::default(), 400);
    }
    assert_eq!(hub.summary().memory, 0, "all books are closed");
}

#[test]
fn channels_alone_may_not_take_all_memory() {
    let hub = Hub::new(Limits { memory: Some(10_000), ..Limits::default() });
    let made =
        (0..1000).take_while(|n| hub.publish(format!("{n}").as_bytes(), Draft::default(), 0, PASS).is_ok()).count();
    assert!((10..100).contains(&made), "{made}");
}

#[test]
fn quiet_channels_go_but_not_those_with_messages_or_subscribers() {
    let limits = Limits { channel_inactivity_time: Some(5), message_ttl: Some(50), ..Limits::default() };
    let hub = Hub::new(limits);
    let (inbox, _) = worker(&hub, 0);
    hub.publish(b"quiet", Draft::default(), 0, PASS).unwrap();
    publish(&hub, "stored", "text", 0);
    let joined = hub.subscribe(&inbox, b"joined", &Start::New, true, 0).unwrap();
    assert!(hub.expire(4).is_empty());
    assert_eq!(hub.expire(5).iter().map(ToString::to_string).collect::<Vec<_>>(), ["quiet"]);
    assert!(hub.expire(40).is_empty());
    let left = hub.unsubscribe(&inbox, b"joined", joined.key, 48).unwrap();
    assert!(left.last_of_worker && left.last_of_all);
    assert_eq!(hub.expire(50).iter().map(ToString::to_string).collect::<Vec<_>>(), ["stored"]);
    assert_eq!(hub.expire(53).iter().map(ToString::to_string).collect::<Vec<_>>(), ["joined"]);
    assert_eq!(hub.summary().memory, 0);
}

#[test]
fn first_and_last_are_told_for_the_worker_and_for_all() {
    let hub = Hub::new(Limits::default());
    let ((one, _), (two, _)) = (worker(&hub, 0), worker(&hub, 1));
    let join = |inbox| {
        let joined = hub.subscribe(inbox, b"x", &Start::New, true, 0).unwrap();
        (joined.key, joined.first_of_worker, joined.first_of_all)
    };
    let (key, ..) = join(&one);
    assert_eq!(join(&one), (key, false, false));
    assert_eq!(join(&two), (key, true, false));
    let leave = |inbox| hub.unsubscribe(inbox, b"x", key, 0).map(|left| (left.last_of_worker, left.last_of_all));
    assert_eq!(leave(&one), Some((false, false)));
    assert_eq!(leave(&one), Some((true, false)));
    assert_eq!(leave(&two), Some((true, true)));
    assert_eq!(leave(&two), None);
    assert_eq!(join(&two), (key, true, true));
}

#[test]
fn deletion_is_the_last_entry_and_a_new_life_has_a_new_key() {
    let hub = Hub::new(Limits::default());
    let (inbox, wakes) = worker(&hub, 0);
    let old = hub.subscribe(&inbox, b"x", &Start::New, true, 0).unwrap();
    publish(&hub, "x", "last", 0);
    assert!(hub.delete(b"x", Draft::text("gone"), 0));
    publish(&hub, "x", "anew", 0);
    let mut entries = Vec::new();
    inbox.drain(&mut entries);
    let seen: Vec<_> = entries.iter().map(|entry| (entry.channel, entry.message.id, entry.deleted)).collect();
    assert_eq!(seen, [(old.key, 1, false), (old.key, DELETED, true)]);
    assert_eq!(wakes.load(Ordering::Relaxed), 1, "an inbox that is not empty needs no second wake");
    assert_eq!(stored(&hub, "x", &ALL, 0), "anew");
    assert_eq!(hub.unsubscribe(&inbox, b"x", old.key, 0), None);
}

#[test]
fn statistics_add_up() {
    let hub = Hub::new(Limits { wildcard_prefix: Some(Bytes::from("w_")), ..Limits::default() });
    let (inbox, _) = worker(&hub, 3);
    publish(&hub, "st_1", "a", 0);
    publish(&hub, "st_1", "b", 0);
    publish(&hub, "zz", "c", 0);
    hub.subscribe(&inbox, b"w_1", &Start::New, true, 0).unwrap();
    inbox.set_subscribers(1);
    let ids = |prefix: &[u8]| {
        hub.statistics_of_prefix(prefix, 0).iter().map(|channel| channel.id.to_string()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!((ids(b"st_"), ids(b""), ids(b"nothing")), ("st_1".into(), "st_1 zz w_1".into(), String::new()));
    let summary = hub.summary();
    assert_eq!((summary.channels, summary.wildcard_channels, summary.published, summary.stored), (2, 1, 3, 3));
    assert_eq!((summary.subscribers, summary.by_worker), (1, vec![(WorkerId(3), 1)]));
    assert_eq!(hub.statistics(b"none", 0), None);
}

/// What a history of operations does to a subscriber: it must see what a model says.
#[derive(Clone, Debug)]
enum Step {
    Publish { channel: usize, store: bool },
    Join { channel: usize, worker: usize, backtrack: usize },
    Leave { which: usize },
    Drain { worker: usize },
    Tick,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0usize..3, any::<bool>()).prop_map(|(channel, store)| Step::Publish { channel, store }),
        2 => (0usize..3, 0usize..2, 0usize..4)
            .prop_map(|(channel, worker, backtrack)| Step::Join { channel, worker, backtrack }),
        1 => (0usize..8).prop_map(|which| Step::Leave { which }),
        3 => (0usize..2).prop_map(|worker| Step::Drain { worker }),
        1 => Just(Step::Tick),
    ]
}

/// A subscriber as a worker keeps it.
struct Listener {
    channel: usize,
    worker: usize,
    key: crate::hub::channel::ChannelKey,
    last: i64,
    seen: Vec<i64>,
    expected: Vec<i64>,
}

fn deliver(inbox: &Inbox, worker: usize, listeners: &mut [Listener]) {
    let mut entries: Vec<Entry> = Vec::new();
    inbox.drain(&mut entries);
    for entry in entries {
        let theirs = listeners.iter_mut().filter(|l| l.worker == worker && l.key == entry.channel);
        for listener in theirs.filter(|l| entry.message.id > l.last) {
            listener.last = entry.message.id;
            listener.seen.push(entry.message.id);
        }
    }
}

proptest! {
    /// However publishing, joining, leaving and draining interleave: no gap, no duplicate, no disorder.
    #[test]
    fn backlog_and_inbox_meet(steps in proptest::collection::vec(step(), 0..120)) {
        let hub = Hub::new(Limits { max_stored_per_channel: Some(3), message_ttl: Some(4), ..Limits::default() });
        let workers = [worker(&hub, 0).0, worker(&hub, 1).0];
        let names = ["a", "b", "c"];
        let (mut now, mut listeners): (u64, Vec<Listener>) = (0, Vec::new());
        let mut histories: [Vec<(i64, u64)>; 3] = Default::default();
        let mut published = [0i64; 3];
        for step in steps {
            match step {
                Step::Publish { channel, store } => {
                    let options = PublishOptions { store, create: true };
                    let message = hub.publish(names[channel].as_bytes(), Draft::default(), now, options).unwrap().message;
                    published[channel] += 1;
                    prop_assert_eq!(message.id, published[channel]);
                    if store {
                        histories[channel].push((message.id, now));
                    }
                    listeners.iter_mut().filter(|l| l.channel == channel).for_each(|l| l.expected.push(message.id));
                }
                Step::Join { channel, worker, backtrack } => {
                    let start = Start::Backtrack(backtrack);
                    let id = names[channel].as_bytes();
                    let joined = hub.subscribe(&workers[worker], id, &start, true, now).unwrap();
                    let seen: Vec<i64> = joined.backlog.iter().map(|message| message.id).collect();
                    let kept: Vec<_> = histories[channel].iter().rev().take(3).filter(|(_, time)| time + 4 > now).collect();
                    let expected: Vec<i64> = kept.iter().take(backtrack).rev().map(|(id, _)| *id).collect();
                    let (key, last) = (joined.key, joined.live_after);
                    listeners.push(Listener { channel, worker, key, last, seen, expected });
                }
                Step::Leave { which } if which < listeners.len() => {
                    let gone = listeners.swap_remove(which);
                    deliver(&workers[gone.worker], gone.worker, &mut listeners);
                    let left = hub.unsubscribe(&workers[gone.worker], names[gone.channel].as_bytes(), gone.key, now);
                    let others = listeners.iter().filter(|l| l.channel == gone.channel).count();
                    prop_assert_eq!(left.map(|left| left.last_of_all), Some(others == 0));
                }
                Step::Leave { .. } => {}
                Step::Drain { worker } => deliver(&workers[worker], worker, &mut listeners),
                Step::Tick => {
                    now += 1;
                    hub.expire(now);
                }
            }
        }
        for (number, inbox) in workers.iter().enumerate() {
            deliver(inbox, number, &mut listeners);
        }
        for listener in &listeners {
            prop_assert_eq!(&listener.seen, &listener.expected);
        }
    }
}

#[test]
fn publishers_on_many_threads_give_every_worker_the_same_order() {
    let hub = Arc::new(Hub::new(Limits::default()));
    let workers = [worker(&hub, 0).0, worker(&hub, 1).0];
    for inbox in &workers {
        hub.subscribe(inbox, b"x", &Start::New, true, 0).unwrap();
    }
    std::thread::scope(|scope| {
        for publisher in 0..4 {
            let hub = &hub;
            scope.spawn(move || (0..500).for_each(|n| publish(hub, "x", &format!("{publisher} {n}"), 0)));
        }
    });
    for inbox in &workers {
        let mut entries = Vec::new();
        inbox.drain(&mut entries);
        assert!(entries.iter().map(|entry| entry.message.id).eq(1..=2000));
    }
    let tags: std::collections::HashSet<_> =
        hub.history(b"x", &ALL, 0).unwrap().iter().map(|message| message.tag).collect();
    assert_eq!(tags.len(), 2000);
}
