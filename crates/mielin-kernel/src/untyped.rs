//! How memory becomes objects.

use crate::abi::ThreadSlot;
use crate::abi::{Error, ObjectKind, PAGE_BITS, RETYPE_MAX, Retype, Rights};
use crate::capability::{Capability, FrameForm};
use crate::kernel::{Kernel, Served};
use crate::machine::{Machine, Page};
use crate::objects::{
    AddressSpace, Endpoint, Entry, Notification, Queue, Reply, SchedulingContext, Slot,
};
use crate::queues;
use crate::reference::{Ref, UNIT_BYTES};
use crate::thread::{self, Thread};

impl<M: Machine> Kernel<M> {
    /// Makes objects of the memory that is left in an untyped. All of them are made, or none.
    ///
    /// When nothing is left of what was made of an untyped before, all of it can be used again.
    pub(crate) fn retype(
        &self,
        by: Ref<Thread>,
        slot: Ref<Slot>,
        [what, node, index, _]: [u64; 4],
    ) -> Served {
        let what = Retype(what);
        let kind = ObjectKind::from_number(what.kind()).ok_or(Error::InvalidArgument)?;
        let object_bits = kind.bits(what.size()).ok_or(Error::InvalidArgument)?;
        let count = what.count();
        if count == 0 || count > RETYPE_MAX {
            return Err(Error::InvalidArgument.into());
        }
        let parent = self.object(slot);
        let Capability::Untyped {
            base,
            bits,
            device,
            used,
        } = parent.capability()
        else {
            return Err(Error::WrongKind.into());
        };
        if device && !matches!(kind, ObjectKind::Untyped | ObjectKind::Frame) {
            return Err(Error::InvalidArgument.into());
        }
        let used = match parent.first_child() {
            Some(_) => u64::from(used) * UNIT_BYTES,
            None => 0,
        };
        let start = (base + used).next_multiple_of(1 << object_bits) - base;
        let end = (count << object_bits)
            .checked_add(start)
            .filter(|end| *end <= 1 << bits)
            .ok_or(Error::NoMemory)?;
        if kind == ObjectKind::AddressSpace && self.free_spaces() < count as usize {
            return Err(Error::NoIdentifier.into());
        }
        for offset in 0..count {
            self.place_at(by, node, index.wrapping_add(offset))?;
        }

        parent.set(Capability::Untyped {
            base,
            bits,
            device,
            used: (end / UNIT_BYTES) as u32,
        });
        for offset in 0..count {
            let at = base + start + (offset << object_bits);
            let place = self.place_at(by, node, index.wrapping_add(offset))?;
            let made = self.make(kind, at, object_bits, device)?;
            self.put(slot, place, made);
        }
        Ok(())
    }

    /// Makes an object. What of memory a program or the MMU will see is zeroed.
    fn make(&self, kind: ObjectKind, at: u64, bits: u8, device: bool) -> Result<Capability, Error> {
        let machine = &self.machine;
        let rights = Rights::ALL;
        Ok(match kind {
            ObjectKind::Untyped => Capability::Untyped {
                base: at,
                bits,
                device,
                used: 0,
            },
            ObjectKind::Frame => {
                if !device {
                    machine.clear(at, 1 << bits);
                }
                Capability::Frame {
                    page: u32::try_from(at >> PAGE_BITS).map_err(|_| Error::BadAddress)?,
                    form: FrameForm::new(bits > PAGE_BITS, device, rights),
                    space: 0,
                    at: 0,
                }
            }
            ObjectKind::PageTable => {
                machine.clear(at, 1 << bits);
                let table: Ref<Page> = placed(at)?;
                Capability::PageTable {
                    table,
                    level: 0,
                    space: 0,
                    at: 0,
                }
            }
            ObjectKind::Node => {
                let node: Ref<Slot> = placed(at)?;
                let bits = bits - 5;
                for index in 0..1 << bits {
                    machine.place::<Slot>(node.offset(index * 2));
                }
                self.object(node).set(Capability::Header { count: 0, bits });
                Capability::Node { node, bits, rights }
            }
            ObjectKind::Endpoint => {
                let endpoint: Ref<Endpoint> = placed(at)?;
                machine.place(endpoint);
                Capability::Endpoint {
                    endpoint,
                    rights,
                    badge: 0,
                }
            }
            ObjectKind::Notification => {
                let notification: Ref<Notification> = placed(at)?;
                machine.place(notification);
                Capability::Notification {
                    notification,
                    rights,
                    badge: 0,
                }
            }
            ObjectKind::Queue => {
                let queue: Ref<Queue> = queues::in_memory(at).ok_or(Error::BadAddress)?;
                for which in [queues::HAS_MESSAGE, queues::HAS_ROOM] {
                    machine.place(queues::slot(queue, which));
                }
                machine.place(queue);
                let capacity = queues::capacity(bits);
                self.object(queue).capacity.set(capacity);
                for index in 0..capacity {
                    machine.place::<Entry>(queues::entry(queue, index));
                }
                Capability::Queue {
                    queue,
                    rights,
                    badge: 0,
                }
            }
            ObjectKind::Thread => {
                let thread: Ref<Thread> = thread::in_memory(at).ok_or(Error::BadAddress)?;
                for which in ThreadSlot::ALL {
                    machine.place(thread::slot(thread, which));
                }
                machine.place(thread);
                machine.begin_thread(thread);
                Capability::Thread { thread }
            }
            ObjectKind::AddressSpace => {
                let space: Ref<AddressSpace> = placed(at)?;
                machine.place(space);
                self.begin_space(space)?;
                Capability::AddressSpace { space }
            }
            ObjectKind::SchedulingContext => {
                let context: Ref<SchedulingContext> = placed(at)?;
                machine.place(context);
                Capability::SchedulingContext { context }
            }
            ObjectKind::Reply => {
                let reply: Ref<Reply> = placed(at)?;
                machine.place(reply);
                Capability::Reply { reply }
            }
        })
    }
}

fn placed<T>(at: u64) -> Result<Ref<T>, Error> {
    Ref::at(at).ok_or(Error::BadAddress)
}
