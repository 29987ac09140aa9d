//! Who may hold a connection, and how often something may happen.
//!
//! A connection is a stranger's until its other end is proven. Strangers share a small pool in
//! which the newest pushes out the oldest, so a flood of idle connections never keeps a peer
//! out: a peer is done with its handshake in milliseconds. Proven connections are counted per
//! peer and in total; one peer's flood fills its own share only.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// How many connections there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateLimits {
    /// Whose other end is not proven yet.
    pub strangers_max: usize,
    /// Of one peer.
    pub per_peer_max: usize,
    /// Of all peers.
    pub total_max: usize,
}

impl Default for GateLimits {
    fn default() -> Self {
        // A secondary uses one or two connections; sixteen leave room for one that reconnects
        // before its old connections are noticed to be dead. Each costs some 50 KB.
        Self { strangers_max: 64, per_peer_max: 16, total_max: 512 }
    }
}

/// Why a proven peer gets no further connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// It has its share.
    #[error("peer has {0} connections already")]
    Peer(usize),
    /// All peers together have theirs.
    #[error("{0} connections are open already")]
    Total(usize),
}

/// Counts connections; `K` is how a peer is told apart.
#[derive(Debug)]
pub struct Gate<K: Eq + Hash + Clone> {
    limits: GateLimits,
    inner: Mutex<Inner<K>>,
}

#[derive(Debug)]
struct Inner<K> {
    next: u64,
    strangers: VecDeque<(u64, CancellationToken)>,
    peers: HashMap<K, usize>,
    total: usize,
}

impl<K: Eq + Hash + Clone> Gate<K> {
    /// An open gate.
    pub fn new(limits: GateLimits) -> Arc<Self> {
        let inner = Inner { next: 0, strangers: VecDeque::new(), peers: HashMap::new(), total: 0 };
        Arc::new(Self { limits, inner: Mutex::new(inner) })
    }

    /// Lets a stranger in; where the pool is full the oldest stranger has to go. Says whether.
    pub fn stranger(self: &Arc<Self>) -> (Stranger<K>, bool) {
        let mut inner = self.lock();
        let pushed_out = inner.strangers.len() >= self.limits.strangers_max.max(1);
        if pushed_out && let Some((_, oldest)) = inner.strangers.pop_front() {
            oldest.cancel();
        }
        let (id, leave) = (inner.next, CancellationToken::new());
        inner.next += 1;
        inner.strangers.push_back((id, leave.clone()));
        (Stranger { gate: self.clone(), id, leave }, pushed_out)
    }

    fn lock(&self) -> MutexGuard<'_, Inner<K>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stranger's place; given up when dropped.
#[derive(Debug)]
pub struct Stranger<K: Eq + Hash + Clone> {
    gate: Arc<Gate<K>>,
    id: u64,
    leave: CancellationToken,
}

impl<K: Eq + Hash + Clone> Stranger<K> {
    /// Ready when the place is needed for a newer connection.
    pub fn leave(&self) -> CancellationToken {
        self.leave.clone()
    }

    /// The other end is proven: trades the place for one of the peer's.
    pub fn promote(self, peer: K) -> Result<Place<K>, Full> {
        let gate = self.gate.clone();
        drop(self);
        let mut inner = gate.lock();
        if inner.total >= gate.limits.total_max {
            return Err(Full::Total(inner.total));
        }
        let held = inner.peers.get(&peer).copied().unwrap_or(0);
        if held >= gate.limits.per_peer_max {
            return Err(Full::Peer(held));
        }
        inner.peers.insert(peer.clone(), held + 1);
        inner.total += 1;
        drop(inner);
        Ok(Place { gate, peer })
    }
}

impl<K: Eq + Hash + Clone> Drop for Stranger<K> {
    fn drop(&mut self) {
        self.gate.lock().strangers.retain(|(id, _)| *id != self.id);
    }
}

/// A proven peer's place; given up when dropped.
#[derive(Debug)]
pub struct Place<K: Eq + Hash + Clone> {
    gate: Arc<Gate<K>>,
    peer: K,
}

impl<K: Eq + Hash + Clone> Drop for Place<K> {
    fn drop(&mut self) {
        let mut inner = self.gate.lock();
        inner.total -= 1;
        match inner.peers.get_mut(&self.peer) {
            Some(held) if *held > 1 => *held -= 1,
            _ => drop(inner.peers.remove(&self.peer)),
        }
    }
}

/// A token bucket: bounds what strangers can make happen (log lines, answers).
#[derive(Debug)]
pub struct Throttle {
    burst: u32,
    refill: Duration,
    state: Mutex<(u32, Instant)>,
}

impl Throttle {
    /// `burst` at once, then one each `refill`.
    pub fn new(burst: u32, refill: Duration) -> Self {
        Self { burst, refill, state: Mutex::new((burst, Instant::now())) }
    }

    /// Whether it may happen now.
    pub fn pass(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, since) = &mut *state;
        let elapsed = since.elapsed();
        let earned = elapsed.as_nanos() / self.refill.as_nanos().max(1);
        if earned > 0 {
            *left = left.saturating_add(u32::try_from(earned).unwrap_or(u32::MAX)).min(self.burst);
            *since = Instant::now();
        }
        let pass = *left > 0;
        *left = left.saturating_sub(1);
        pass
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> Arc<Gate<&'static str>> {
        Gate::new(GateLimits { strangers_max: 2, per_peer_max: 2, total_max: 3 })
    }

    #[test]
    fn the_newest_stranger_pushes_out_the_oldest() {
        let gate = gate();
        let ((a, _), (b, _)) = (gate.stranger(), gate.stranger());
        let (c, pushed_out) = gate.stranger();
        assert!(pushed_out && a.leave().is_cancelled() && !b.leave().is_cancelled());
        drop(b);
        let (_d, pushed_out) = gate.stranger();
        assert!(!pushed_out && !c.leave().is_cancelled());
    }

    #[test]
    fn a_peer_fills_its_own_share_only() {
        let gate = gate();
        let enter = |peer| gate.stranger().0.promote(peer);
        let first = enter("a").expect("place");
        let _second = enter("a").expect("place");
        assert_eq!(enter("a").expect_err("full"), Full::Peer(2));
        let _third = enter("b").expect("place");
        assert_eq!(enter("c").expect_err("full"), Full::Total(3));
        drop(first);
        enter("c").expect("place");
        assert_eq!(gate.lock().strangers.len(), 0);
        assert!(!gate.lock().peers.contains_key("c"));
    }

    #[test]
    fn a_throttle_passes_a_burst_and_no_more() {
        let throttle = Throttle::new(3, Duration::from_secs(3600));
        assert_eq!((0..9).filter(|_| throttle.pass()).count(), 3);
    }
}
