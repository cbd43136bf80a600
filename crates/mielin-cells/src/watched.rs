//! A value that can be watched, and costs no more than the value while nobody does.

use std::sync::Mutex;

use tokio::sync::watch;

use crate::lock::lock;

/// A [`watch`] channel that is made when somebody first looks. There may be a hundred thousand of these.
#[derive(Debug)]
pub(crate) struct Watched<T>(Mutex<State<T>>);

#[derive(Debug)]
enum State<T> {
    Unseen(T),
    Seen(watch::Sender<T>),
}

impl<T: Clone> Watched<T> {
    pub(crate) const fn new(value: T) -> Watched<T> {
        Watched(Mutex::new(State::Unseen(value)))
    }

    /// Looks at the value.
    pub(crate) fn with<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        match &*lock(&self.0) {
            State::Unseen(value) => look(value),
            State::Seen(sender) => look(&sender.borrow()),
        }
    }

    /// Changes the value; `change` says whether that is news for those who watch, which is given back.
    pub(crate) fn change(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        let mut state = lock(&self.0);
        match &mut *state {
            State::Unseen(value) => change(value),
            State::Seen(sender) => {
                let changed = sender.send_if_modified(change);
                if sender.receiver_count() == 0 {
                    let value = sender.borrow().clone();
                    *state = State::Unseen(value);
                }
                changed
            }
        }
    }

    /// Sees every change from now on.
    pub(crate) fn watch(&self) -> watch::Receiver<T> {
        let mut state = lock(&self.0);
        match &*state {
            State::Seen(sender) => sender.subscribe(),
            State::Unseen(value) => {
                let (sender, receiver) = watch::channel(value.clone());
                *state = State::Seen(sender);
                receiver
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn watchers_see_changes_and_leave_nothing_behind() {
        let watched = Watched::new(1);
        assert!(watched.change(|value| std::mem::replace(value, 2) != 2));
        let (mut one, mut other) = (watched.watch(), watched.watch());
        assert_eq!(
            (*one.borrow_and_update(), watched.with(|value| *value)),
            (2, 2)
        );
        assert!(!watched.change(|_| false));
        assert!(!one.has_changed().unwrap());
        watched.change(|value| std::mem::replace(value, 3) != 3);
        one.changed().await.unwrap();
        assert_eq!(*other.wait_for(|value| *value == 3).await.unwrap(), 3);
        drop((one, other));
        watched.change(|value| std::mem::replace(value, 4) != 4);
        assert!(matches!(*lock(&watched.0), State::Unseen(4)));
        assert_eq!(*watched.watch().borrow(), 4);
    }
}
