//! Jobs, and threads that do them: they start at first need and end with their lane.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::sync::is_alone;

struct Queue<J> {
    jobs: VecDeque<J>,
    threads: usize,
    idle: usize,
    closed: bool,
}

struct State<J> {
    queue: Mutex<Queue<J>>,
    woken: Condvar,
    work: Box<dyn Fn(J) + Send + Sync>,
}

/// A lane. Dropping it ends its threads once there are no jobs.
pub(crate) struct Lane<J> {
    state: Arc<State<J>>,
    name: &'static str,
    most: usize,
}

impl<J: Send + 'static> Lane<J> {
    /// A lane of at most so many threads, each with that name.
    pub(crate) fn new(
        name: &'static str,
        most: usize,
        work: impl Fn(J) + Send + Sync + 'static,
    ) -> Self {
        Self {
            state: Arc::new(State {
                queue: Mutex::new(Queue {
                    jobs: VecDeque::new(),
                    threads: 0,
                    idle: 0,
                    closed: false,
                }),
                woken: Condvar::new(),
                work: Box::new(work),
            }),
            name,
            most,
        }
    }

    /// Hands a job over.
    ///
    /// # Errors
    ///
    /// The jobs that wait, when there is no thread and none can be had.
    pub(crate) fn submit(&self, job: J) -> Result<(), Vec<J>> {
        if is_alone() {
            (self.state.work)(job);
            return Ok(());
        }
        let mut queue = self.state.queue();
        queue.jobs.push_back(job);
        if queue.jobs.len() <= queue.idle || queue.threads >= self.most {
            drop(queue);
            self.state.woken.notify_one();
            return Ok(());
        }
        queue.threads += 1;
        drop(queue);
        self.start_thread()
    }

    /// Whether a job would be begun at once.
    pub(crate) fn has_room(&self) -> bool {
        let queue = self.state.queue();
        queue.jobs.len() < queue.idle || queue.threads < self.most
    }

    /// Takes back what has not begun.
    pub(crate) fn take_waiting(&self) -> Vec<J> {
        self.state.queue().jobs.drain(..).collect()
    }

    fn start_thread(&self) -> Result<(), Vec<J>> {
        let state = Arc::clone(&self.state);
        let started = thread::Builder::new()
            .name(self.name.into())
            .spawn(move || state.run());
        let Err(error) = started else { return Ok(()) };
        tracing::error!("no thread for work that sleeps: {error}; raise the limit of processes");
        let mut queue = self.state.queue();
        queue.threads -= 1;
        if queue.threads > 0 {
            return Ok(());
        }
        Err(queue.jobs.drain(..).collect())
    }
}

impl<J> Drop for Lane<J> {
    fn drop(&mut self) {
        self.state.queue().closed = true;
        self.state.woken.notify_all();
    }
}

impl<J> State<J> {
    fn queue(&self) -> MutexGuard<'_, Queue<J>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        while let Some(job) = self.next() {
            (self.work)(job);
        }
    }

    fn next(&self) -> Option<J> {
        let mut queue = self.queue();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            if queue.closed {
                queue.threads -= 1;
                return None;
            }
            queue.idle += 1;
            queue = self
                .woken
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Receiver, Sender};
    use std::time::Duration;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// A job begins, says so, and ends when it is told to.
    type Gate = (Sender<()>, Receiver<()>);

    fn lane(most: usize) -> Lane<Gate> {
        Lane::new("test", most, |(begun, end): Gate| {
            let _ = begun.send(());
            let _ = end.recv();
        })
    }

    fn job(begun: &Sender<()>) -> (Gate, Sender<()>) {
        let (end, ended) = mpsc::channel();
        ((begun.clone(), ended), end)
    }

    #[test]
    fn as_many_jobs_run_at_once_as_the_lane_has_threads() {
        let lane = lane(2);
        let (begun, begins) = mpsc::channel();
        let ends: Vec<Sender<()>> = (0..3)
            .map(|_| {
                let (gate, end) = job(&begun);
                assert!(lane.submit(gate).is_ok());
                end
            })
            .collect();
        for _ in 0..2 {
            begins.recv_timeout(LIMIT).unwrap();
        }
        assert!(!lane.has_room());
        assert!(begins.try_recv().is_err(), "a third at once");
        drop(ends);
        begins.recv_timeout(LIMIT).unwrap();
    }

    #[test]
    fn an_idle_thread_is_used_again() {
        let lane = lane(64);
        let (begun, begins) = mpsc::channel();
        for _ in 0..100 {
            let (gate, end) = job(&begun);
            assert!(lane.submit(gate).is_ok());
            begins.recv_timeout(LIMIT).unwrap();
            drop(end);
            while lane.state.queue().idle == 0 {
                thread::yield_now();
            }
        }
        assert_eq!(lane.state.queue().threads, 1);
    }

    #[test]
    fn what_has_not_begun_can_be_taken_back() {
        let lane = lane(1);
        let (begun, begins) = mpsc::channel();
        let (gate, _end) = job(&begun);
        assert!(lane.submit(gate).is_ok());
        begins.recv_timeout(LIMIT).unwrap();
        let (gate, _other_end) = job(&begun);
        assert!(lane.submit(gate).is_ok());
        assert_eq!(lane.take_waiting().len(), 1);
        assert!(lane.take_waiting().is_empty());
    }

    #[test]
    fn threads_end_with_their_lane() {
        let lane = lane(4);
        let (begun, begins) = mpsc::channel();
        let (gate, end) = job(&begun);
        assert!(lane.submit(gate).is_ok());
        begins.recv_timeout(LIMIT).unwrap();
        let state = Arc::downgrade(&lane.state);
        drop((lane, end));
        while state.strong_count() > 0 {
            thread::yield_now();
        }
    }
}
