//! A responder's answer about a server's own certificate, as clients are shown it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arc_swap::ArcSwapOption;

use super::files::Identity;
use super::ocsp::{Answer, Question, Status};

/// A certificate with what is known of it.
#[derive(Debug)]
pub struct Stapling {
    /// What is asked.
    pub question: Question,
    /// The certificate without an answer.
    pub(super) bare: Identity,
    strictly: bool,
    /// The certificate with the answer, and until when that holds.
    shown: ArcSwapOption<(Identity, i64)>,
    /// When it is time to ask again; while somebody asks, never.
    due: AtomicI64,
}

/// The shortest and the longest time between two questions, seconds; nginx's own.
const SHORTEST: i64 = 300;
const LONGEST: i64 = 3600;

impl Stapling {
    /// Shows a certificate without an answer as yet. `strictly`: it is looked at who has signed the answer.
    pub fn new(bare: Identity, question: Question, strictly: bool) -> Arc<Self> {
        Arc::new(Self { question, bare, strictly, shown: ArcSwapOption::empty(), due: AtomicI64::new(0) })
    }

    /// The certificate as it is shown at a time, seconds since 1970.
    pub fn identity(&self, now: i64) -> Identity {
        match &*self.shown.load() {
            Some(shown) if shown.1 >= now => Arc::clone(&shown.0),
            _ => Arc::clone(&self.bare),
        }
    }

    /// Whether it is time to ask. Then it is the caller who must, and tell by [`Self::answered`].
    pub fn begin(&self, now: i64) -> bool {
        let due = self.due.load(Ordering::Relaxed);
        due < now && self.due.compare_exchange(due, i64::MAX, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Takes an answer, if there is one. An error is why it is not shown.
    pub fn answered(&self, answer: Option<Vec<u8>>, now: i64) -> Result<(), String> {
        let taken = answer.map_or(Ok(now + SHORTEST), |answer| self.take(answer, now));
        self.due.store(*taken.as_ref().unwrap_or(&(now + SHORTEST)), Ordering::Relaxed);
        taken.map(|_| ())
    }

    fn take(&self, der: Vec<u8>, now: i64) -> Result<i64, String> {
        let Answer { status, until } = self.question.read(&der, now, self.strictly)?;
        if status != Status::Good {
            return Err(format!("certificate status \"{status}\" in the OCSP response"));
        }
        let mut stapled = rustls::sign::CertifiedKey::clone(&self.bare);
        stapled.ocsp = Some(der);
        let until = until.unwrap_or(i64::MAX);
        self.shown.store(Some(Arc::new((Arc::new(stapled), until))));
        Ok((until - SHORTEST).min(now + LONGEST).max(now + SHORTEST))
    }
}
