//! A connection, its request and the link to the server are driven by one task, and wake each other through channels: that
//! wakes the very task that is driving them. The runtime takes it for a wish to let others go first, wakes a second thread
//! to share the work, and drives the task once more for nothing, at each request. Here such wakes stay inside.
//!
//! Invariants: no wake is lost: one that comes while the future is driven drives it again, any other wakes the task. A
//! future that wakes itself without end still lets others go.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::task::AtomicWaker;

/// How often it is driven before others get their turn.
const ROUNDS: u8 = 16;

/// Nobody drives it: a wake is for the task.
const RESTING: u8 = 0;
/// It is being driven.
const DRIVEN: u8 = 1;
/// It is being driven, and was woken meanwhile.
const WOKEN: u8 = 2;

/// Drives a future for as long as it wakes itself.
pub(super) async fn within<F: Future>(future: F) -> F::Output {
    let wakes = Wakes::new();
    let mut future = pin!(future);
    poll_fn(|cx| wakes.drive(cx, |cx| future.as_mut().poll(cx))).await
}

/// The wakes of one future.
struct Wakes {
    inner: Arc<Inner>,
    waker: Waker,
}

struct Inner {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Wake for Inner {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let seen = self
            .state
            .compare_exchange(DRIVEN, WOKEN, Ordering::AcqRel, Ordering::Acquire);
        if seen == Err(RESTING) {
            self.task.wake();
        }
    }
}

impl Wakes {
    fn new() -> Self {
        let inner = Arc::new(Inner {
            state: AtomicU8::new(RESTING),
            task: AtomicWaker::new(),
        });
        let waker = Waker::from(Arc::clone(&inner));
        Self { inner, waker }
    }

    /// Drives until it is ready, or waits for something outside.
    fn drive<T>(
        &self,
        cx: &Context<'_>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let state = &self.inner.state;
        self.inner.task.register(cx.waker());
        let mut inside = Context::from_waker(&self.waker);
        for _ in 0..ROUNDS {
            state.store(DRIVEN, Ordering::Release);
            if let Poll::Ready(value) = poll(&mut inside) {
                state.store(RESTING, Ordering::Release);
                return Poll::Ready(value);
            }
            let rests =
                state.compare_exchange(DRIVEN, RESTING, Ordering::AcqRel, Ordering::Acquire);
            if rests.is_ok() {
                return Poll::Pending;
            }
        }
        state.store(RESTING, Ordering::Release);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::{Context, Poll, Wake, Waker},
        thread,
    };

    use super::{ROUNDS, Wakes};

    /// A task that counts how often it is woken.
    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Task {
        fn woken(&self) -> usize {
            self.0.load(Ordering::SeqCst)
        }
    }

    #[test]
    fn a_wake_from_inside_drives_again_and_does_not_reach_the_task() {
        let (wakes, task) = (Wakes::new(), Arc::new(Task::default()));
        let waker = Waker::from(Arc::clone(&task));
        let mut rounds = 0;
        let driven = wakes.drive(&Context::from_waker(&waker), |cx| {
            rounds += 1;
            if rounds == 3 {
                return Poll::Ready(rounds);
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        });
        assert_eq!(driven, Poll::Ready(3));
        assert_eq!(task.woken(), 0);
    }

    #[test]
    fn a_wake_from_outside_reaches_the_task_that_drove_last() {
        let wakes = Wakes::new();
        let tasks = [(); 2].map(|()| Arc::new(Task::default()));
        let mut kept = None;
        for task in &tasks {
            let waker = Waker::from(Arc::clone(task));
            let driven = wakes.drive(&Context::from_waker(&waker), |cx| {
                kept = Some(cx.waker().clone());
                Poll::<()>::Pending
            });
            assert_eq!(driven, Poll::Pending);
        }
        let kept = kept.expect("it was driven");
        kept.wake_by_ref();
        assert_eq!([tasks[0].woken(), tasks[1].woken()], [0, 1]);
    }

    #[test]
    fn what_wakes_itself_without_end_lets_others_go() {
        let (wakes, task) = (Wakes::new(), Arc::new(Task::default()));
        let waker = Waker::from(Arc::clone(&task));
        let mut rounds = 0;
        let driven = wakes.drive(&Context::from_waker(&waker), |cx| {
            rounds += 1;
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        assert_eq!((driven, rounds), (Poll::Pending, ROUNDS));
        assert_eq!(task.woken(), 1);
    }

    /// Whenever the other thread's wake falls: either it is driven again, or the task is woken.
    #[test]
    fn a_wake_from_another_thread_is_never_lost() {
        for _ in 0..2_000 {
            let (wakes, task) = (Wakes::new(), Arc::new(Task::default()));
            let waker = Waker::from(Arc::clone(&task));
            let (tell, told) = std::sync::mpsc::channel::<Waker>();
            let other = thread::spawn(move || told.recv().expect("a waker").wake());
            let mut rounds = 0;
            let driven = wakes.drive(&Context::from_waker(&waker), |cx| {
                if rounds == 0 {
                    tell.send(cx.waker().clone()).expect("it listens");
                }
                rounds += 1;
                Poll::<()>::Pending
            });
            other.join().expect("it wakes");
            assert_eq!(driven, Poll::Pending);
            assert_eq!(rounds - 1 + task.woken(), 1);
        }
    }
}
