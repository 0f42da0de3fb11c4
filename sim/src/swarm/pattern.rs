//! Streams that say who they are: whatever is lost, repeated, reordered or misled shows at once.
//!
//! A stream starts with its number, four bytes; every later byte follows from that number and its place.

/// Bytes of the number.
const HEAD: u64 = 4;

/// The byte of stream `id` at a place.
fn byte(id: u32, place: u64) -> u8 {
    if place < HEAD {
        return id.to_le_bytes()[place as usize];
    }
    let mixed = (u64::from(id) << 32 ^ place).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8
}

/// `count` bytes of stream `id` from a place on.
pub(crate) fn bytes(id: u32, from: u64, count: usize) -> Vec<u8> {
    (from..from + count as u64).map(|place| byte(id, place)).collect()
}

/// Reads a stream and compares.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reader {
    head: [u8; HEAD as usize],
    place: u64,
}

impl Reader {
    /// The stream's number, once it has been read.
    pub(crate) fn id(&self) -> Option<u32> {
        (self.place >= HEAD).then(|| u32::from_le_bytes(self.head))
    }

    /// Takes the next bytes in.
    ///
    /// # Errors
    /// Where they differ from what they should be.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<(), String> {
        for &read in bytes {
            if self.place < HEAD {
                self.head[self.place as usize] = read;
            } else {
                let id = u32::from_le_bytes(self.head);
                let wanted = byte(id, self.place);
                if read != wanted {
                    let place = self.place;
                    return Err(format!("stream {id}: byte {place} is {read}, not {wanted}"));
                }
            }
            self.place += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_in_pieces_reads_as_itself() {
        let mut reader = Reader::default();
        for (from, count) in [(0, 1), (1, 2), (3, 40), (43, 1000)] {
            reader.take(&bytes(77, from, count)).expect("as it was written");
        }
        assert_eq!((reader.id(), reader.place), (Some(77), 1043));
    }

    #[test]
    fn lost_repeated_and_misled_bytes_show() {
        let mut reader = Reader::default();
        reader.take(&bytes(1, 0, 100)).expect("as it was written");
        assert!(Reader::take(&mut reader.clone(), &bytes(1, 101, 8)).is_err(), "one was lost");
        assert!(Reader::take(&mut reader.clone(), &bytes(1, 92, 8)).is_err(), "eight again");
        assert!(Reader::take(&mut reader.clone(), &bytes(2, 100, 8)).is_err(), "of another");
    }
}
