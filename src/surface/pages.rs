//! The kernel's trace as it lies in its buffers (kernel: `include/linux/ring_buffer.h`, and `events/header_page` and `header_event` of
//! tracefs): pages of records, each with the number of its event and of its task.
//!
//! Where every event is traced, this and not the text of it is read: names of tasks and files, which a workload chooses, are in there as
//! bytes of a record's length.

use super::events::{Event, What};

/// Bytes of a page.
pub(super) const PAGE: usize = 4096;
/// Before the records: a time, and how many bytes they have.
const HEADER: usize = 16;
/// Part of that number which is a length.
const LENGTH: u64 = 0xf_ffff;
/// Part of it which says that records were lost before.
const LOST: u64 = 1 << 31;

/// Numbers of the events that tell whose task it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) enter: u16,
    pub(super) exit: u16,
    pub(super) fork: u16,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Passed {
    /// On the trace's clock.
    pub(super) at: u64,
    /// Which event.
    pub(super) number: u16,
    /// Whose.
    pub(super) task: u32,
    /// What it tells of its task, where it is one of those.
    pub(super) what: Option<What>,
}

impl Passed {
    /// As an event that tells whose tasks are whose.
    pub(super) fn event(&self) -> Option<Event> {
        Some(Event { task: self.task, what: self.what.clone()? })
    }
}

/// Pages that are none, or from which something is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PageError {
    /// The kernel had no room for them.
    #[error("records were lost")]
    Lost,
    /// It is not what a page looks like.
    #[error("the kernel's buffer has another form")]
    Form,
}

/// The records of a page, in order.
///
/// # Errors
/// Something is missing, or it is not a page.
pub(super) fn read(page: &[u8], known: Known) -> Result<Vec<Passed>, PageError> {
    let mut at = number::<8>(page, 0).map(u64::from_le_bytes).ok_or(PageError::Form)?;
    let commit = number::<8>(page, 8).map(u64::from_le_bytes).ok_or(PageError::Form)?;
    if commit & LOST != 0 {
        return Err(PageError::Lost);
    }
    let length = usize::try_from(commit & LENGTH).map_err(|_| PageError::Form)?;
    let mut rest = page.get(HEADER..HEADER + length).ok_or(PageError::Form)?;
    let mut records = Vec::new();
    while let Some(head) = number::<4>(rest, 0).map(u32::from_le_bytes) {
        let (kind, delta) = (head & 31, u64::from(head >> 5));
        let second = number::<4>(rest, 4).map(u32::from_le_bytes);
        let word = second.map(|word| usize::try_from(word).map_err(|_| PageError::Form)).transpose()?;
        // Where the record's own bytes begin, and where the next one does.
        let (from, to) = match (kind, word) {
            // Nothing but padding follows.
            (29, _) if delta == 0 => break,
            (29, Some(bytes)) => (0, bytes.checked_add(4).ok_or(PageError::Form)?),
            (30 | 31, Some(_)) => (0, 8),
            (0, Some(bytes)) => (8, bytes.checked_add(4).ok_or(PageError::Form)?),
            (1..=28, _) => (4, 4 + 4 * usize::try_from(kind).map_err(|_| PageError::Form)?),
            _ => return Err(PageError::Form),
        };
        let high = u64::from(second.unwrap_or_default()) << 27;
        at = match kind {
            30 => at.wrapping_add(high | delta),
            // A time of its own, of which the highest bits are those of before.
            31 => at & !((1 << 59) - 1) | high | delta,
            _ => at.wrapping_add(delta),
        };
        if to < 4 || to > rest.len() {
            return Err(PageError::Form);
        }
        if from > 0 {
            records
                .push(record(rest.get(from..to).ok_or(PageError::Form)?, at, known).ok_or(PageError::Form)?);
        }
        rest = &rest[to..];
    }
    Ok(records)
}

/// Number of the event, flags, number of the task; then what the event tells.
fn record(bytes: &[u8], at: u64, known: Known) -> Option<Passed> {
    let event = u16::from_le_bytes(number(bytes, 0)?);
    let task = u32::from_le_bytes(number(bytes, 4)?);
    let word = |n: usize| number::<8>(bytes, 8 + 8 * n).map(u64::from_le_bytes);
    let what = if event == known.enter {
        let arguments = [word(1)?, word(2)?, word(3)?];
        Some(What::Enter { number: u32::try_from(word(0)?).ok()?, arguments })
    } else if event == known.exit {
        // The return from a signal has no number.
        let value = word(1)?.cast_signed();
        u32::try_from(word(0)?).ok().map(|number| What::Exit { number, value })
    } else if event == known.fork {
        Some(What::Fork { child: u32::from_le_bytes(number(bytes, 8)?) })
    } else {
        None
    };
    Some(Passed { at, number: event, task, what })
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: Known = Known { enter: 20, exit: 21, fork: 30 };

    fn page(records: &[u8]) -> Vec<u8> {
        let mut page = 1000_u64.to_le_bytes().to_vec();
        page.extend((records.len() as u64).to_le_bytes());
        page.extend(records);
        page.resize(PAGE, 0);
        page
    }

    fn head(kind: u32, delta: u32) -> [u8; 4] {
        (kind | delta << 5).to_le_bytes()
    }

    /// The first eight bytes of any event.
    fn common(event: u16, task: u32) -> Vec<u8> {
        let mut bytes = event.to_le_bytes().to_vec();
        bytes.extend([0, 0]);
        bytes.extend(task.to_le_bytes());
        bytes
    }

    fn words(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn records_of_each_form_are_read_with_their_times() {
        let enter = [common(20, 7), words(&[16, 5, 0xae80, 0, 0, 0, 0])].concat();
        let exit = [common(21, 7), words(&[59, 0])].concat();
        let other = [common(99, 8), vec![b'x'; 300]].concat();
        let fork = [common(30, 7), words(&[9])].concat();
        let records = [
            &head(u32::try_from(enter.len() / 4).expect("small"), 5)[..],
            &enter,
            &head(30, 1),
            &2_u32.to_le_bytes(),
            &head(u32::try_from(exit.len() / 4).expect("small"), 0),
            &exit,
            // Longer than what the head has room for.
            &head(0, 1),
            &u32::try_from(other.len() + 4).expect("small").to_le_bytes(),
            &other,
            // One that was taken back.
            &head(29, 3),
            &8_u32.to_le_bytes(),
            &[0; 4],
            &head(u32::try_from(fork.len() / 4).expect("small"), 1),
            &fork,
        ]
        .concat();
        let found = read(&page(&records), KNOWN).expect("a page");
        let of = |at, number, task, what| Passed { at, number, task, what };
        let late = 1005 + (2 << 27) + 1;
        let expected = [
            of(1005, 20, 7, Some(What::Enter { number: 16, arguments: [5, 0xae80, 0] })),
            of(late, 21, 7, Some(What::Exit { number: 59, value: 0 })),
            of(late + 1, 99, 8, None),
            of(late + 5, 30, 7, Some(What::Fork { child: 9 })),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_missing_or_none_is_told_and_nothing_panics() {
        assert_eq!(read(&page(&[]), KNOWN), Ok(vec![]));
        assert_eq!(read(&[0; 8], KNOWN), Err(PageError::Form));
        let mut lost = page(&[]);
        lost[11] = 0x80;
        assert_eq!(read(&lost, KNOWN), Err(PageError::Lost));
        // A record that is longer than its page.
        assert_eq!(read(&page(&head(28, 0)), KNOWN), Err(PageError::Form));
        for kind in 0..32 {
            for length in [0_u32, 1, 3, 4, 8, 400, u32::MAX] {
                for size in [4, 8, 9, 40] {
                    let mut records = [head(kind, 1).to_vec(), length.to_le_bytes().to_vec()].concat();
                    records.resize(size, 0xff);
                    let _ = read(&page(&records), KNOWN);
                }
            }
        }
    }
}
