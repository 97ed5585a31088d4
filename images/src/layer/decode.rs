//! From stored bytes to a tar stream: compression, budgets on the decompressed side.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use crate::budget::{BudgetError, DECOMPRESSED, Meter};
use crate::digest::Hashing;

/// Bytes of compressed input read at once.
const BUFFER: usize = 128 << 10;

/// How a layer or archive is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Plain tar.
    None,
    /// gzip, one or several members.
    Gzip,
    /// zstd, one or several frames.
    Zstd,
}

impl Compression {
    /// By the first four bytes. zstd's skippable frames count: some writers start with one.
    #[must_use]
    pub fn of_magic(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// Decompressed bytes of a stored stream.
pub(crate) struct Decoder<R> {
    inner: Inner<R>,
    count: u64,
    limit: u64,
    total: u64,
    ratio: u64,
    floor: u64,
}

enum Inner<R> {
    Plain(BufReader<Hashing<R>>),
    Gzip(Box<MultiGzDecoder<BufReader<Hashing<R>>>>),
    Zstd(Box<Zstd<BufReader<Hashing<R>>>>),
}

impl<R: Read> Decoder<R> {
    /// Finds the compression by the first bytes.
    pub(crate) fn new(stored: R, meter: &Meter) -> io::Result<(Compression, Self)> {
        let mut stored = BufReader::with_capacity(BUFFER, Hashing::new(stored));
        let compression = Compression::of_magic(stored.fill_buf()?);
        if compression == Compression::None {
            // The reader of the tar stream hashes the same bytes.
            stored.get_mut().stop_hashing();
        }
        let budgets = &meter.budgets;
        let inner = match compression {
            Compression::None => Inner::Plain(stored),
            Compression::Gzip => Inner::Gzip(Box::new(MultiGzDecoder::new(stored))),
            Compression::Zstd => Inner::Zstd(Box::new(Zstd::new(stored, budgets.zstd_window_bytes))),
        };
        let decoder = Self {
            inner,
            count: 0,
            limit: meter.decompressed_left(),
            total: budgets.decompressed_bytes,
            ratio: budgets.ratio,
            floor: budgets.ratio_floor_bytes,
        };
        Ok((compression, decoder))
    }

    /// The stored side: count of what was read, and its digest where it differs from the tar stream's.
    pub(crate) fn stored(&self) -> &Hashing<R> {
        match &self.inner {
            Inner::Plain(stored) => stored.get_ref(),
            Inner::Gzip(gzip) => gzip.get_ref().get_ref(),
            Inner::Zstd(zstd) => zstd.source.get_ref(),
        }
    }

    fn check(&self) -> Result<(), BudgetError> {
        if self.count > self.limit {
            return Err(BudgetError { what: DECOMPRESSED, limit: self.total });
        }
        let allowed = self.stored().count.saturating_mul(self.ratio);
        if self.count > self.floor && self.count > allowed {
            return Err(BudgetError {
                what: "decompressed bytes for each compressed byte",
                limit: self.ratio,
            });
        }
        Ok(())
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = match &mut self.inner {
            Inner::Plain(plain) => plain.read(buf)?,
            Inner::Gzip(gzip) => gzip.read(buf)?,
            Inner::Zstd(zstd) => zstd.read(buf)?,
        };
        self.count += n as u64;
        self.check().map_err(io::Error::other)?;
        Ok(n)
    }
}

/// All frames of a zstd stream, checksums verified.
struct Zstd<R> {
    source: R,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(source: R, window_bytes: u64) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(window_bytes);
        Self { source, decoder, in_frame: false }
    }

    /// Starts the next frame; `false` at the end of the stream.
    fn begin(&mut self) -> io::Result<bool> {
        loop {
            if self.source.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.decoder.reset(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let skipped = io::copy(&mut self.source.by_ref().take(length.into()), &mut io::sink())?;
                    if skipped < u64::from(length) {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }

    fn verify(&self) -> io::Result<()> {
        let stored = self.decoder.get_checksum_from_data();
        if stored.is_some() && stored != self.decoder.get_calculated_checksum() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "zstd checksum does not match"));
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.in_frame {
                if !self.begin()? {
                    return Ok(0);
                }
                self.in_frame = true;
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let step = BlockDecodingStrategy::UptoBytes(BUFFER);
                self.decoder.decode_blocks(&mut self.source, step).map_err(io::Error::other)?;
            }
            let n = self.decoder.read(buf)?;
            if n > 0 {
                return Ok(n);
            }
            self.verify()?;
            self.in_frame = false;
        }
    }
}
