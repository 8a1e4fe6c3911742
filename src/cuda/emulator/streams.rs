//! What the emulated device holds: streams with the work they were given, events, graphs, and which memory there is.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ptr::{with_exposed_provenance, with_exposed_provenance_mut};
use std::sync::Arc;
use std::time::Instant;

use super::bindings::{Aligned, Registered, launch};
use super::refused;
use crate::cuda::platform::{Address, Geometry, Handle};
use crate::error::{Error, Result};

#[derive(Default)]
pub(super) struct State {
    handles: usize,
    pub streams: HashMap<Handle, Stream>,
    pub events: HashMap<Handle, Event>,
    pub graphs: HashMap<Handle, Arc<[Work]>>,
    /// Bytes of each allocation.
    pub memory: BTreeMap<Address, usize>,
    pub used: u64,
    /// Allocations, pinned ones included, and streams that were ever made.
    pub created: usize,
    /// Why nothing can be done any more.
    pub lost: Option<Lost>,
}

#[derive(Default)]
pub(super) struct Stream {
    /// Operations that were given to it so far, and that were done or begun.
    given: u64,
    done: u64,
    queue: VecDeque<Operation>,
    /// What was given since a graph was begun.
    pub recording: Option<Vec<Work>>,
}

#[derive(Default)]
pub(super) struct Event {
    /// How often it was recorded: only the last record counts.
    pub turn: u64,
    /// The stream, and how many of its operations happen up to the event.
    pub recorded: Option<(Handle, u64)>,
    pub happened: Option<Instant>,
}

pub(super) enum Operation {
    Once(Work),
    Graph(Arc<[Work]>),
    Record { event: Handle, turn: u64 },
    Wait { stream: Handle, until: u64 },
}

/// Host addresses are as plain as the device's here.
pub(super) enum Work {
    Copy { to: Address, from: Address, bytes: usize },
    Fill { to: Address, byte: u8, bytes: usize },
    Launch { kernel: &'static Registered, geometry: Geometry, params: Vec<Aligned> },
}

/// A kernel's fault.
pub(super) struct Lost {
    kernel: String,
    message: String,
}

impl Lost {
    pub(super) fn error(&self) -> Error {
        let what = format!("emulator: kernel {}", self.kernel);
        Error::Cuda { what, message: self.message.clone(), fatal: true }
    }
}

impl State {
    pub(super) fn new_handle(&mut self) -> Handle {
        self.handles += 1;
        Handle(self.handles)
    }

    pub(super) fn stream(&mut self, stream: Handle) -> Result<&mut Stream> {
        self.streams.get_mut(&stream).ok_or_else(|| refused("stream", "no such stream"))
    }

    /// A stream on which no graph is being recorded.
    pub(super) fn idle_stream(&mut self, stream: Handle, what: &str) -> Result<&mut Stream> {
        let stream = self.stream(stream)?;
        if stream.recording.is_some() {
            return Err(refused(what, "not while the stream records a graph"));
        }
        Ok(stream)
    }

    pub(super) fn event(&self, event: Handle) -> Result<&Event> {
        self.events.get(&event).ok_or_else(|| refused("event", "no such event"))
    }

    /// To the stream, or to the graph that it records.
    pub(super) fn give(&mut self, stream: Handle, work: Work) -> Result<()> {
        match &mut self.stream(stream)?.recording {
            Some(recording) => recording.push(work),
            None => drop(self.push(stream, Operation::Once(work))?),
        }
        Ok(())
    }

    /// Gives how many operations the stream has been given.
    pub(super) fn push(&mut self, stream: Handle, operation: Operation) -> Result<u64> {
        let stream = self.stream(stream)?;
        stream.queue.push_back(operation);
        stream.given += 1;
        Ok(stream.given)
    }

    /// The stream's next operation, of the first `until`.
    pub(super) fn next_operation(&mut self, stream: Handle, until: u64) -> Option<Operation> {
        let stream = self.streams.get_mut(&stream)?;
        if stream.done >= until {
            return None;
        }
        let operation = stream.queue.pop_front()?;
        stream.done += 1;
        Some(operation)
    }

    /// After this, nothing is done any more.
    pub(super) fn lose(&mut self, lost: Lost) {
        self.streams.values_mut().for_each(|stream| stream.queue.clear());
        self.lost = Some(lost);
    }

    /// Refuses what is not inside one allocation.
    pub(super) fn check_range(&self, what: &str, address: Address, bytes: usize) -> Result<()> {
        let room = self.memory.range(..=address).next_back().and_then(|(&start, &size)| {
            let offset = usize::try_from(address - start).ok()?;
            size.checked_sub(offset)
        });
        match room {
            Some(room) if bytes <= room => Ok(()),
            Some(room) if room > 0 => {
                Err(refused(what, format!("{bytes} bytes, where the allocation has {room} left")))
            }
            _ => Err(refused(what, format!("{bytes} bytes at an address of no allocation"))),
        }
    }
}

impl Work {
    /// # Safety
    ///
    /// As [`Platform`](crate::cuda::platform::Platform) asks of whoever gave it, until now; a kernel is of the build that `checked`
    /// names, its geometry within its bounds, its parameters of its size.
    pub(super) unsafe fn perform(&self, checked: bool, workers: u32) -> std::result::Result<(), Lost> {
        match *self {
            Self::Copy { to, from, bytes } => {
                let from = with_exposed_provenance::<u8>(from as usize);
                // SAFETY: readable and writable, as the caller promises; `copy` allows for overlap.
                unsafe { from.copy_to(with_exposed_provenance_mut(to as usize), bytes) };
                Ok(())
            }
            Self::Fill { to, byte, bytes } => {
                // SAFETY: writable, as the caller promises.
                unsafe { with_exposed_provenance_mut::<u8>(to as usize).write_bytes(byte, bytes) };
                Ok(())
            }
            Self::Launch { kernel, geometry, ref params } => {
                // SAFETY: the caller's promise.
                let done = unsafe { launch(kernel, checked, geometry, params, workers) };
                done.map_err(|message| Lost { kernel: kernel.name().to_string_lossy().into_owned(), message })
            }
        }
    }
}
