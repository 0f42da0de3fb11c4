//! The descriptor tables of rings: places that hold a reference to a file, beside the process's descriptors.
//!
//! In a submission a place is a number from [`DIRECT`] on, as in a `Descriptor`, so that whatever takes a descriptor
//! takes a place. The runtime fills places by [`Kernel::put_at`] only; what allocates them is for scripts.
//! As with descriptors, an operation in flight holds its own reference: emptying the place under it leaves the
//! file open, and no FIN goes out until the operation has ended.

use super::{Event, FileId, Kernel, OperationId, Owner};
use crate::marks::Mark;

/// Numbers from here on are places in the ring's own table.
pub(crate) const DIRECT: u32 = 1 << 31;

impl Kernel {
    /// io_uring_register(2) of an empty table.
    pub(crate) fn register_places(&mut self, ring: u16, places: u32) {
        self.ring(ring).places = vec![None; places as usize];
    }

    /// io_uring_register(2) of a descriptor at a place that is free, which is the user's to know.
    pub(crate) fn put_at(&mut self, ring: u16, descriptor: u32, place: u32) -> Result<(), i32> {
        let id = self.lookup(descriptor).ok_or(libc::EBADF)?;
        if self.rings[usize::from(ring)].places.get(place as usize).is_some_and(Option::is_some) {
            self.violate(format!("place {place} of the table was filled, and is taken"));
        }
        self.put_direct(ring, id, Some(place))?;
        if let Some(file) = self.file_mut(id) {
            file.references += 1;
        }
        let places_ever = &mut self.ring(ring).places_ever;
        let used_again = place < *places_ever;
        *places_ever = (*places_ever).max(place + 1);
        if used_again {
            self.marks.meet(Mark::PlaceReused);
        }
        Ok(())
    }

    /// A descriptor for what is in a place, beside it.
    pub(crate) fn install_from(&mut self, ring: u16, number: u32) -> Result<u32, i32> {
        let id = self.lookup_for(ring, number).ok_or(libc::EBADF)?;
        let descriptor = self.install(id)?;
        if let Some(file) = self.file_mut(id) {
            file.references += 1;
        }
        Ok(descriptor)
    }

    /// Places of all rings that something is in.
    pub(crate) fn taken_places(&self) -> usize {
        self.rings.iter().map(|ring| ring.places.iter().flatten().count()).sum()
    }

    /// The file behind a descriptor, or behind a place of the ring.
    pub(crate) fn lookup_for(&self, ring: u16, number: u32) -> Option<FileId> {
        match number.checked_sub(DIRECT) {
            Some(place) => *self.rings[usize::from(ring)].places.get(place as usize)?,
            None => self.lookup(number),
        }
    }

    /// close(2), or the emptying of a place.
    pub(crate) fn close_for(&mut self, ring: u16, number: u32) -> Result<(), i32> {
        let Some(place) = number.checked_sub(DIRECT) else { return self.close(number) };
        let places = &mut self.ring(ring).places;
        if places.is_empty() {
            return Err(libc::ENXIO);
        }
        let place = places.get_mut(place as usize).ok_or(libc::EINVAL)?;
        let id = place.take().ok_or(libc::EBADF)?;
        self.drop_reference(id);
        Ok(())
    }

    /// Puts a file, with a reference of its own, into the place or the lowest free one.
    pub(super) fn put_direct(
        &mut self,
        ring: u16,
        id: FileId,
        into: Option<u32>,
    ) -> Result<u32, i32> {
        let places = &mut self.ring(ring).places;
        let place = match into {
            Some(_) if places.is_empty() => return Err(libc::ENXIO),
            Some(place) if place as usize >= places.len() => return Err(libc::EINVAL),
            Some(place) => place as usize,
            None => places.iter().position(Option::is_none).ok_or(libc::ENFILE)?,
        };
        if let Some(before) = places[place].replace(id) {
            self.drop_reference(before);
        }
        Ok(place as u32)
    }

    /// Accepts into the ring's table. The client is taken before anybody looks for a place: it is lost when
    /// there is none.
    pub(super) fn accept_direct(&mut self, id: OperationId, listener: FileId, many: bool) {
        for _ in 0..super::operations::SHOTS_MAX {
            let Some(client) = self.accept(listener, Owner::Rings) else {
                return self.arm(id, listener);
            };
            let place = match self.put_direct(id.ring, client, None) {
                Ok(place) => place as i32,
                Err(errno) => {
                    self.drop_reference(client);
                    return self.finish(id, -errno, 0);
                }
            };
            if !many || self.dice.permille(self.knobs.ended_multishot) || !self.shoot(id, place, 0)
            {
                return self.finish(id, place, 0);
            }
        }
        self.make_ready(id);
    }

    /// close(2) of a ring: what it held is let go of later.
    pub(crate) fn close_ring(&mut self, ring: u16) {
        self.ring(ring).closed = true;
        let in_us = self.latency_us();
        self.schedule(in_us, Event::Exit(ring));
    }

    /// The ring has wound up.
    pub(super) fn on_exit(&mut self, ring: u16) {
        self.exit_ring(ring);
        let places = std::mem::take(&mut self.ring(ring).places);
        places.into_iter().flatten().for_each(|id| self.drop_reference(id));
    }
}
