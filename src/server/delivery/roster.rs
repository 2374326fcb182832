//! Who of this worker listens to which channel, and what a drained inbox means for them.

use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use slab::Slab;
use smallvec::SmallVec;

use crate::hub::channel::{ChannelId, ChannelKey};
use crate::hub::message::{Message, RenderingKey};
use crate::server::delivery::gzip::{self, Addition};
use crate::server::delivery::subscriber::{Rendering, Seat, SubscriberId};

/// The bytes of several messages that are put together for one write. More than this goes by itself.
const BATCH: usize = 256 * 1024;

/// The channels that have subscribers on this worker.
#[derive(Default)]
pub(super) struct Rosters {
    by_key: HashMap<ChannelKey, u32>,
    rosters: Slab<Roster>,
}

/// One channel's subscribers.
pub(super) struct Roster {
    pub(super) channel: ChannelId,
    pub(super) key: ChannelKey,
    groups: SmallVec<[Group; 1]>,
    /// What came for the channel in the round that is being planned.
    pending: Vec<Arc<Message>>,
}

/// Subscribers that get the same bytes.
struct Group {
    rendering: Rc<dyn Rendering>,
    key: RenderingKey,
    /// They have other channels too: their messages go by their queues, in the order of the inbox.
    several: bool,
    members: Vec<Member>,
    /// The youngest message that some member already has from its backlog.
    newest: i64,
}

/// A subscriber of a channel.
#[derive(Clone, Copy)]
struct Member {
    subscriber: SubscriberId,
    /// It has the messages up to this one.
    after: i64,
}

/// Bytes for many.
pub(super) struct Job {
    /// The frames, and where each ends it may be cut.
    pub(super) frames: SmallVec<[Bytes; 1]>,
    /// The same in one piece.
    pub(super) batch: Bytes,
    /// What they add to a gzip stream.
    pub(super) addition: Option<Addition>,
    /// For whom, in [`Plan::targets`].
    pub(super) targets: Range<usize>,
}

/// What is to be done about some entries of the inbox. Kept between rounds for its space.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) jobs: Vec<Job>,
    pub(super) targets: Vec<SubscriberId>,
    /// Frames for single subscribers' queues.
    pub(super) singles: Vec<(SubscriberId, Bytes)>,
    /// Those whose channel is gone, once all of the above is done.
    pub(super) deleted: Vec<SubscriberId>,
    /// The rosters of those channels.
    pub(super) deleted_rosters: Vec<u32>,
    touched: Vec<u32>,
}

impl Plan {
    pub(super) fn clear(&mut self) {
        self.jobs.clear();
        self.targets.clear();
        self.singles.clear();
        self.deleted.clear();
        self.deleted_rosters.clear();
    }
}

impl Rosters {
    /// Adds a subscriber to a channel.
    pub(super) fn seat(
        &mut self,
        (key, channel): (ChannelKey, &ChannelId),
        subscriber: SubscriberId,
        rendering: &Rc<dyn Rendering>,
        several: bool,
        after: i64,
    ) -> Seat {
        let rosters = &mut self.rosters;
        let at = *self.by_key.entry(key).or_insert_with(|| {
            let (groups, pending) = (SmallVec::new(), Vec::new());
            rosters.insert(Roster { channel: channel.clone(), key, groups, pending }) as u32
        });
        let found = rosters[at as usize].group(rendering, several);
        let group = &mut rosters[at as usize].groups[found];
        group.newest = group.newest.max(after);
        group.members.push(Member { subscriber, after });
        Seat { roster: at, group: found as u32, member: (group.members.len() - 1) as u32 }
    }

    /// The channel of a place.
    pub(super) fn channel(&self, seat: Seat) -> Option<&ChannelId> {
        self.rosters.get(seat.roster as usize).map(|roster| &roster.channel)
    }

    /// Takes a subscriber off its place; returns who has that place now, and the channel.
    pub(super) fn unseat(&mut self, seat: Seat) -> Option<(Option<SubscriberId>, ChannelId, ChannelKey)> {
        let roster = self.rosters.get_mut(seat.roster as usize)?;
        let members = &mut roster.groups.get_mut(seat.group as usize)?.members;
        if seat.member as usize >= members.len() {
            return None;
        }
        members.swap_remove(seat.member as usize);
        let moved = members.get(seat.member as usize).map(|member| member.subscriber);
        let (channel, key) = (roster.channel.clone(), roster.key);
        if roster.groups.iter().all(|group| group.members.is_empty()) {
            self.by_key.remove(&key);
            self.rosters.remove(seat.roster as usize);
        }
        Some((moved, channel, key))
    }

    /// Gives a subscriber another place in the same channel, where it gets its messages otherwise; returns who has its old
    /// place now, with that, and the new one.
    pub(super) fn reseat(
        &mut self,
        seat: Seat,
        rendering: &Rc<dyn Rendering>,
        several: bool,
    ) -> Option<(Option<(SubscriberId, Seat)>, Seat)> {
        let roster = self.rosters.get_mut(seat.roster as usize)?;
        let members = &mut roster.groups.get_mut(seat.group as usize)?.members;
        if seat.member as usize >= members.len() {
            return None;
        }
        let member = members.swap_remove(seat.member as usize);
        let moved = members.get(seat.member as usize).map(|moved| (moved.subscriber, seat));
        let found = roster.group(rendering, several);
        let group = &mut roster.groups[found];
        group.newest = group.newest.max(member.after);
        group.members.push(member);
        let new = Seat { group: found as u32, member: (group.members.len() - 1) as u32, ..seat };
        Some((moved, new))
    }

    /// Takes an entry of the inbox into the plan.
    pub(super) fn take(&mut self, plan: &mut Plan, key: ChannelKey, message: &Arc<Message>, deleted: bool) {
        let Some(&at) = self.by_key.get(&key) else {
            return;
        };
        let roster = &mut self.rosters[at as usize];
        if roster.pending.is_empty() {
            plan.touched.push(at);
        }
        roster.pending.push(Arc::clone(message));
        for group in roster.groups.iter().filter(|group| group.several && !group.members.is_empty()) {
            let bytes = group.bytes(message);
            let members = group.members.iter().filter(|member| deleted || member.after < message.id);
            plan.singles.extend(members.map(|member| (member.subscriber, bytes.clone())));
        }
        if deleted {
            plan.deleted.extend(roster.groups.iter().flat_map(|group| &group.members).map(|member| member.subscriber));
            plan.deleted_rosters.push(at);
        }
    }

    /// Makes jobs of what was taken.
    pub(super) fn complete(&mut self, plan: &mut Plan) {
        for at in std::mem::take(&mut plan.touched) {
            let Some(roster) = self.rosters.get_mut(at as usize) else {
                continue;
            };
            let messages = std::mem::take(&mut roster.pending);
            for group in roster.groups.iter().filter(|group| !group.several && !group.members.is_empty()) {
                group.plan(plan, &messages);
            }
        }
    }
}

impl Roster {
    /// The place of the group that gets its messages so; made when it is not there.
    fn group(&mut self, rendering: &Rc<dyn Rendering>, several: bool) -> usize {
        let groups = &mut self.groups;
        let wanted = rendering.key();
        let found = groups.iter().position(|group| group.key == wanted && group.several == several);
        found.unwrap_or_else(|| {
            let new = Group { rendering: Rc::clone(rendering), key: wanted, several, members: Vec::new(), newest: 0 };
            // Seats name groups by their place, so that an empty one is replaced rather than removed.
            match groups.iter().position(|group| group.members.is_empty()) {
                Some(empty) => {
                    groups[empty] = new;
                    empty
                }
                None => {
                    groups.push(new);
                    groups.len() - 1
                }
            }
        })
    }
}

impl Group {
    fn bytes(&self, message: &Message) -> Bytes {
        message.rendering(self.key, || self.rendering.render(message))
    }

    /// The members that get all the messages are a job, or several if the bytes are many. Those who joined while the
    /// messages were in the inbox get theirs singly.
    fn plan(&self, plan: &mut Plan, messages: &[Arc<Message>]) {
        // The last words of a channel have no number, and are for everybody.
        let number = |message: &Message| if message.id < 0 { i64::MAX } else { message.id };
        let first = messages.first().map_or(0, |message| number(message));
        let begin = plan.targets.len();
        plan.targets.extend(self.members.iter().filter(|member| member.after < first).map(|member| member.subscriber));
        let targets = begin..plan.targets.len();
        if !targets.is_empty() {
            let mut frames = SmallVec::new();
            let mut size = 0;
            let mut addition: Option<Addition> = None;
            for message in messages {
                let mut frame = self.bytes(message);
                if size + frame.len() > BATCH && size > 0 {
                    plan.jobs.push(Job::new(std::mem::take(&mut frames), targets.clone(), addition.take()));
                    size = 0;
                }
                if self.rendering.is_zipped() {
                    let (opened, next) = gzip::open(frame);
                    frame = opened;
                    addition = Some(addition.map_or(next, |before| before.then(&next)));
                }
                size += frame.len();
                frames.push(frame);
            }
            plan.jobs.push(Job::new(frames, targets, addition));
        }
        if self.newest >= first {
            for member in self.members.iter().filter(|member| member.after >= first) {
                let theirs = messages.iter().filter(|message| member.after < number(message));
                plan.singles.extend(theirs.map(|message| (member.subscriber, self.bytes(message))));
            }
        }
    }
}

impl Job {
    fn new(frames: SmallVec<[Bytes; 1]>, targets: Range<usize>, addition: Option<Addition>) -> Self {
        let batch = match frames.as_slice() {
            [one] => one.clone(),
            several => {
                let mut batch = BytesMut::with_capacity(several.iter().map(Bytes::len).sum());
                several.iter().for_each(|frame| batch.extend_from_slice(frame));
                batch.freeze()
            }
        };
        Self { frames, batch, addition, targets }
    }
}
