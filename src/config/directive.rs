//! What can be said of a directive without code: its row.

use bitflags::bitflags;

use super::builder::Cx;
use super::call::Call;
use super::diagnostic::Fault;

bitflags! {
    /// The kinds of block that a directive may stand in.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Contexts: u16 {
        /// Outside every block.
        const MAIN = 1;
        /// `events { }`
        const EVENTS = 1 << 1;
        /// `http { }`
        const HTTP = 1 << 2;
        /// `server { }` in `http`
        const SERVER = 1 << 3;
        /// `location { }`
        const LOCATION = 1 << 4;
        /// `upstream { }` in `http`
        const UPSTREAM = 1 << 5;
        /// `if { }` in `server`
        const IF_SERVER = 1 << 6;
        /// `if { }` in `location`
        const IF_LOCATION = 1 << 7;
        /// `limit_except { }`
        const LIMIT_EXCEPT = 1 << 8;
        /// `http` and `server`: settings that hold before a location is known.
        const HTTP_SERVER = Self::HTTP.bits() | Self::SERVER.bits();
        /// `http`, `server` and `location`: where most settings are allowed.
        const HTTP_ALL = Self::HTTP.bits() | Self::SERVER.bits() | Self::LOCATION.bits();
        /// The same, and `limit_except`.
        const HTTP_ALL_LIMIT = Self::HTTP_ALL.bits() | Self::LIMIT_EXCEPT.bits();
        /// `http`, `server`, `location`, and `if` in `location`.
        const HTTP_ALL_IF = Self::HTTP_ALL.bits() | Self::IF_LOCATION.bits();
        /// `server`, `location`, and `if` in `location`.
        const SERVER_IF = Self::SERVER.bits() | Self::LOCATION.bits() | Self::IF_LOCATION.bits();
        /// The blocks whose rewrite phase runs: `server`, `location`, and `if` in both.
        const REWRITE = Self::SERVER.bits() | Self::LOCATION.bits() | Self::IF_SERVER.bits() | Self::IF_LOCATION.bits();
        /// The same and `http`: where settings of the rewrite phase are allowed.
        const HTTP_REWRITE = Self::HTTP.bits() | Self::REWRITE.bits();
    }
}

impl Contexts {
    /// The names of the blocks, as nginx's documentation writes them.
    pub fn names(self) -> Vec<&'static str> {
        const NAMES: [(Contexts, &str); 9] = [
            (Contexts::MAIN, "main"),
            (Contexts::EVENTS, "events"),
            (Contexts::HTTP, "http"),
            (Contexts::SERVER, "server"),
            (Contexts::LOCATION, "location"),
            (Contexts::UPSTREAM, "upstream"),
            (Contexts::IF_SERVER, "if in server"),
            (Contexts::IF_LOCATION, "if in location"),
            (Contexts::LIMIT_EXCEPT, "limit_except"),
        ];
        NAMES.iter().filter(|(bit, _)| self.contains(*bit)).map(|(_, name)| *name).collect()
    }
}

/// How many words may follow the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Args {
    /// At least so many.
    pub min: u8,
    /// At most so many; `u8::MAX` is no bound.
    pub max: u8,
}

impl Args {
    /// None at all.
    pub const NONE: Self = Self::exactly(0);
    /// One.
    pub const ONE: Self = Self::exactly(1);
    /// One or more.
    pub const SOME: Self = Self::at_least(1);

    /// Just so many.
    pub const fn exactly(n: u8) -> Self {
        Self { min: n, max: n }
    }

    /// From so many to so many.
    pub const fn between(min: u8, max: u8) -> Self {
        Self { min, max }
    }

    /// So many or more.
    pub const fn at_least(min: u8) -> Self {
        Self { min, max: u8::MAX }
    }

    /// Whether a call with `n` words is right.
    pub fn allow(self, n: usize) -> bool {
        n >= usize::from(self.min) && (self.max == u8::MAX || n <= usize::from(self.max))
    }
}

/// What follows the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// A semicolon.
    None,
    /// A block; `apply` walks it.
    Block,
}

/// How far a directive is carried out here. The compatibility page is written from this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// As in nginx.
    Works,
    /// With a difference, which the text names.
    Partly(&'static str),
    /// Accepted without effect, for the reason given.
    Ignored(&'static str),
}

/// Carries a directive out: checks and stores, and nothing else.
pub type Apply = fn(&mut Cx<'_>, &Call<'_>) -> Result<(), Fault>;

/// One directive of one module.
#[derive(Clone, Copy, Debug)]
pub struct Directive {
    /// Its name.
    pub name: &'static str,
    /// Where it may stand.
    pub contexts: Contexts,
    /// How many words it takes.
    pub args: Args,
    /// What follows them.
    pub body: Body,
    /// Whether it is refused the second time in a block ("is duplicate").
    pub once: bool,
    /// The arguments, as documentation writes them.
    pub syntax: &'static str,
    /// The value where it is not written, as nginx's documentation writes it; empty: none.
    pub default: &'static str,
    /// How far it works here.
    pub status: Status,
    /// The manual's text: meaning, units, source.
    pub doc: &'static str,
    /// The file that implements it.
    pub file: &'static str,
    /// Carries it out.
    pub apply: Apply,
}

impl Directive {
    /// What most rows share; for `..Directive::BASE`.
    pub const BASE: Self = Self {
        name: "",
        contexts: Contexts::empty(),
        args: Args::ONE,
        body: Body::None,
        once: false,
        syntax: "",
        default: "",
        status: Status::Works,
        doc: "",
        file: "",
        apply: |_, _| Ok(()),
    };

    /// A row for what tunes something that does not exist here.
    pub const fn ignored(
        name: &'static str,
        contexts: Contexts,
        args: Args,
        reason: &'static str,
        doc: &'static str,
    ) -> Self {
        Self { name, contexts, args, status: Status::Ignored(reason), doc, ..Self::BASE }
    }
}
