//! nginx-push-stream-module (<https://github.com/wandenberg/nginx-push-stream-module>), with the background requests of its
//! fork: channels that clients subscribe to and publishers publish to.
//!
//! The channels themselves are the [`hub`](crate::hub)'s, and the subscribers' connections belong to
//! [`delivery`](crate::server::delivery); here are the directives, what HTTP says about both, and the formats.
//!
//! Differs from the original: an id cannot break out of the formats of statistics; a websocket's handshake from an origin
//! that is not allowed is refused; what a publish request answers is published whole, and not at all if it failed.

mod answer;
mod channels;
mod check;
mod client;
mod dropped;
mod events_channel;
mod hooks;
mod info;
mod limits;
mod padding;
mod polling;
mod publisher;
mod resume;
mod role;
mod statistics;
mod stream;
mod subscriber;
mod templates;
mod websocket;

use crate::config::{Declarations, Directive, SectionRow};
use crate::http::Module;

/// The module.
pub static MODULE: Module = Module {
    declares: Declarations {
        module: "push_stream",
        sections: &[
            limits::Bounds::ROW,
            SectionRow::of::<limits::Memory>(&[]),
            events_channel::EventsChannel::ROW,
            SectionRow::of::<role::Place>(&[]),
            channels::Channels::ROW,
            publisher::Publishing::ROW,
            subscriber::Subscribing::ROW,
            subscriber::Notices::ROW,
            websocket::Websockets::ROW,
            resume::Resume::ROW,
            templates::Templates::ROW,
            SectionRow::of::<templates::Header>(&[]),
            padding::Paddings::ROW,
            answer::Origins::ROW,
            hooks::Hooks::ROW,
        ],
        commands: COMMANDS,
        variables: dropped::VARIABLES,
    },
    finish: Some(check::finish),
    apply: Some(limits::apply),
    follow: Some(subscriber::follow),
    ..Module::EMPTY
};

const COMMANDS: &[Directive] = &[
    limits::COMMANDS[0],
    publisher::COMMANDS[0],
    subscriber::COMMANDS[0],
    statistics::COMMANDS[0],
    templates::COMMANDS[0],
    templates::COMMANDS[1],
];

#[doc(hidden)]
pub use channels::fuzz as fuzz_channel_path;
#[doc(hidden)]
pub use resume::fuzz as fuzz_resume;
#[doc(hidden)]
pub use templates::fuzz as fuzz_templates;
#[doc(hidden)]
pub use websocket::fuzz as fuzz_handshake;
