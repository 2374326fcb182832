//! What limits by key have in common: the zones that they count in, the status of what is refused, the level of the log.

pub mod zone;

use crate::choice;
use crate::config::value::{Number, Value};
use crate::config::{Call, Cx, Fault};
use crate::server::log::Level;

/// The status of what is refused: 400 to 599.
#[derive(Clone, Copy, Debug)]
pub struct Refusal(pub u16);

impl Value for Refusal {
    const SYNTAX: &'static str = "code";

    fn parse(call: &Call<'_>, cx: &mut Cx<'_>) -> Result<Self, Fault> {
        let status = u16::try_from(*Number::parse(call, cx)?).ok().filter(|status| (400..=599).contains(status));
        status.map(Self).ok_or_else(|| Fault::new("value must be between 400 and 599").word(0))
    }

    fn from_default(_: &'static str) -> Self {
        Self(503)
    }
}

choice! {
    /// How important it is that something was refused.
    pub enum Importance {
        /// Of no importance.
        "info" => Info,
        /// Worth a notice.
        "notice" => Notice,
        /// A warning.
        "warn" => Warn,
        /// An error.
        "error" => Error,
    }
}

impl Importance {
    /// The level of the log.
    pub fn level(self) -> Level {
        match self {
            Self::Info => Level::Info,
            Self::Notice => Level::Notice,
            Self::Warn => Level::Warn,
            Self::Error => Level::Error,
        }
    }

    /// The level for what was only put off.
    pub fn lower(self) -> Level {
        match self {
            Self::Info | Self::Notice => Level::Info,
            Self::Warn => Level::Notice,
            Self::Error => Level::Warn,
        }
    }
}
