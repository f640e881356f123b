//! Where clients get in: the activators that there are now, and what every request to
//! them carries.
//!
//! Invariants: an activator's *place* is a number that no other ever has, so that what
//! is said of a place can be judged when its activator has long been gone; there is
//! always an open door, if only one that refuses: a client that hears of no activator
//! tries those it last heard of.

use std::sync::{Arc, PoisonError, RwLock};

use anyhow::bail;
use http::HeaderMap;
use rand::Rng as _;

/// What a client needs to know.
#[derive(Clone, Debug)]
pub struct Entrance {
    /// Where it gets in.
    pub doors: Doors,
    /// What every request carries.
    pub headers: HeaderMap,
}

/// An activator: who it is, and the `HOST:PORT` where it is reached.
pub type Door = (String, String);

/// The activators. Clones are the same ones.
#[derive(Clone, Debug)]
pub struct Doors(Arc<RwLock<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// By place, all that ever were.
    all: Vec<Door>,
    /// Places of those that are there, ascending, never empty.
    open: Vec<usize>,
}

impl Doors {
    /// These, until others are [`set`](Self::set).
    ///
    /// # Errors
    /// There is none.
    pub fn new(now: Vec<Door>) -> anyhow::Result<Self> {
        if now.is_empty() {
            bail!("there is no activator");
        }
        let doors = Self(Arc::default());
        doors.set(now);
        Ok(doors)
    }

    /// These are there now. None at all changes nothing.
    pub fn set(&self, now: Vec<Door>) {
        if now.is_empty() {
            return;
        }
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.open.clear();
        for door in now {
            let place = known.all.iter().position(|(who, _)| *who == door.0);
            let place = match place {
                Some(place) => {
                    // A pod whose sandbox was lost is the same pod with another address.
                    known.all[place] = door;
                    place
                }
                None => {
                    known.all.push(door);
                    known.all.len() - 1
                }
            };
            known.open.push(place);
        }
        known.open.sort_unstable();
    }

    /// The place of an activator that is or was there.
    #[must_use]
    pub fn place(&self, who: &str) -> Option<usize> {
        self.read(|known| known.all.iter().position(|(known, _)| known == who))
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.read(|known| known.open.len())
    }

    /// Any of them.
    #[must_use]
    pub fn any(&self) -> usize {
        self.read(|known| known.open[rand::rng().random_range(0..known.open.len())])
    }

    /// The one after that place: another one, if there is another.
    #[must_use]
    pub fn after(&self, place: usize) -> usize {
        self.read(|known| {
            let next = known.open.iter().find(|open| **open > place);
            *next.unwrap_or(&known.open[0])
        })
    }

    /// Where the activator of that place is reached, or was.
    #[must_use]
    pub fn address(&self, place: usize) -> String {
        self.read(|known| known.all[place].1.clone())
    }

    fn read<T>(&self, of: impl FnOnce(&Known) -> T) -> T {
        of(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(who: &str, address: &str) -> Door {
        (who.to_owned(), address.to_owned())
    }

    #[test]
    fn a_place_is_never_given_again_and_the_last_doors_stay() {
        let doors = Doors::new(vec![door("a", "1"), door("b", "2")]).unwrap();
        assert_eq!((doors.after(0), doors.after(1), doors.count()), (1, 0, 2));
        doors.set(vec![door("b", "2")]);
        assert_eq!((doors.any(), doors.after(1), doors.count()), (1, 1, 1));
        // Another pod with the address of one that is gone.
        doors.set(vec![door("c", "1"), door("b", "3")]);
        assert_eq!(doors.place("a"), Some(0));
        assert_eq!(doors.place("c"), Some(2));
        assert_eq!((doors.after(0), doors.after(1), doors.after(2)), (1, 2, 1));
        assert_eq!(
            (doors.address(0), doors.address(1)),
            ("1".into(), "3".into())
        );
        doors.set(Vec::new());
        assert_eq!(doors.count(), 2);
        assert!(Doors::new(Vec::new()).is_err());
    }
}
