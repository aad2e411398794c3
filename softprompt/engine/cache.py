"""What rows have computed, kept over steps, epochs, seeds and learning rates: keys and values, or states of a layer.

A row's K/V never changes while nothing learned stands before it, nor do its states below the first learned layer, so they
are computed once. RAM is used up to a budget,
then a memory-mapped file; what would not fit in both is refused before the first row is encoded. Keys are the
content (the row's token ids, under a context digest that covers base, dtype and everything in front of the text).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import TrainingError
from ..storage import cache_dir, plain_disk_errors, write_json

Key = tuple[int, ...]
GB = 1_000_000_000
ELSEWHERE = (
    "set SOFTPROMPT_CACHE to another folder, or raise cache.ram_gb (and leave out cache.keep) to keep rows in memory"
)


@dataclass(frozen=True)
class CacheConfig:
    """How rows' K/V is kept: `dtype` (None: the base's own, exact), bytes in RAM and on disk, kept after the run or not.

    `part`: which shard of the rows this is, where several processes keep one each.
    """

    dtype: torch.dtype | None = None
    ram: int = 4_000_000_000
    disk: int = 50_000_000_000
    keep: bool = False
    part: str = ""

    @property
    def keeps_any(self) -> bool:
        """Whether anything of a row outlives a call. In a server nothing may: it is asked about new texts for ever."""
        return self.ram > 0 or self.disk > 0


class RowCache:
    """K/V [L, 2, G, T, D], or states [T, H], of rows.

    Args:
        layout: shape of one row with 0 where its tokens T go: (L, 2, G, 0, D) or (0, H).
        dtype: what is kept; fp32 is exact for an fp32 base, half the bytes otherwise.
        ram: bytes kept in memory; the rest goes to a file.
        disk: bytes that the file may take.
        keep: name of a context (a digest) under which the file is kept for the next run; None: it goes with the process.
        folder: where files lie (default: the cache folder's `rows`).
    """

    def __init__(
        self,
        layout: Sequence[int],
        dtype: torch.dtype,
        ram: int = 4 * GB,
        disk: int = 50 * GB,
        keep: str | None = None,
        folder: Path | None = None,
    ) -> None:
        self.layout, self.dtype, self.keep = tuple(layout), dtype, keep
        self.token_numbers = math.prod(size for size in layout if size)
        self.ram_left, self.disk_left = (0 if keep else ram), disk
        self._folder = folder
        self._rows: dict[Key, tuple[int, int, int]] = {}  # ids → (chunk, offset in numbers, tokens)
        self._chunks: list[Tensor] = []
        self._files: list[Path] = []
        self._free: list[tuple[int, int, int]] = []  # reserved room: (chunk, from, to)
        self.on_disk = 0
        if keep:
            self._reopen()

    @property
    def folder(self) -> Path:
        """Where files lie; asked for only where there are any, as a cache folder needs a home."""
        return self._folder or cache_dir() / "rows"

    def __contains__(self, ids: Key) -> bool:
        return ids in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def nbytes(self) -> int:
        """Bytes of all kept rows, in memory and on disk."""
        # any thread may ask, also while another keeps a row
        return sum(tokens for _, _, tokens in list(self._rows.values())) * self._token_bytes

    def reserve(self, lengths: Sequence[int]) -> None:
        """Make room for rows of these many tokens.

        Raises:
            TrainingError: they fit neither in the RAM budget nor on disk; says how much is needed and what to set.
        """
        in_ram, rest = 0, 0
        for tokens in lengths:
            size = tokens * self._token_bytes
            if not rest and size <= self.ram_left - in_ram:
                in_ram += size
            else:
                rest += size
        if rest:
            with plain_disk_errors(self.folder, ELSEWHERE):
                self.folder.mkdir(parents=True, exist_ok=True)
                room = min(self.disk_left, int(shutil.disk_usage(self.folder).free * 0.9))
            if rest > room:
                raise TrainingError(
                    f"the encoded rows need {(in_ram + rest) / GB:.1f} GB, the limits are {self.ram_left / GB:.1f} GB of "
                    f"memory and {room / GB:.1f} GB at {self.folder}; set cache.dtype: bf16, or raise cache.ram_gb or "
                    "cache.disk_gb"
                )
        if in_ram:
            self._add_chunk(torch.empty(in_ram // self.dtype.itemsize, dtype=self.dtype))
            self.ram_left -= in_ram
        if rest:
            self._add_chunk(self._new_file(rest))
            self.disk_left -= rest

    def put(self, ids: Key, value: Tensor) -> None:
        """Keep one row's K/V [L, 2, G, T, D] or states [T, H]. Room must have been reserved."""
        numbers = len(ids) * self.token_numbers
        for place, (chunk, start, stop) in enumerate(self._free):
            if stop - start >= numbers:
                self._free[place] = (chunk, start + numbers, stop)
                row = chunk, start, len(ids)
                self._view(row).copy_(value)
                self._rows[ids] = row  # only now: another thread may ask, and copying may fail
                return
        self.reserve([len(ids)])
        self.put(ids, value)

    def get(self, ids: Key) -> Tensor:
        """One kept row, without a copy."""
        return self._view(self._rows[ids])

    def gather(self, rows: Sequence[Key], dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
        """K/V of many rows as one tensor; a row without ids (one that was not encoded) has none.

        Returns:
            [L, 2, B, G, S, D], zero where shorter rows end, in the base's dtype; and the rows' lengths [B].
        """
        lengths = [len(ids) for ids in rows]
        layers, two, heads, _, size = self.layout
        out = torch.empty(layers, two, len(rows), heads, max(lengths), size, dtype=dtype)
        for place, ids in enumerate(rows):
            if ids:
                out[:, :, place, :, : len(ids)] = self._view(self._rows[ids])
            out[:, :, place, :, len(ids) :] = 0  # a masked key still meets a weight of 0, which NaN would survive
        return out.to(device), torch.tensor(lengths, device=device)

    def save_index(self) -> None:
        """Write which row lies where, so that a kept file serves the next run."""
        if not self.keep or not self._files:
            return
        index = [[list(ids), chunk, offset] for ids, (chunk, offset, _) in self._rows.items()]
        write_json(self._index_path, {"files": [path.name for path in self._files], "rows": index})

    def close(self) -> None:
        """Give memory and disk back; a kept file stays for the next run."""
        self.save_index()
        self._chunks.clear()
        self._rows.clear()
        self._free.clear()
        self._files.clear()

    @property
    def _token_bytes(self) -> int:
        return self.token_numbers * self.dtype.itemsize

    @property
    def _index_path(self) -> Path:
        return self.folder / f"{self.keep}.json"

    def _view(self, row: tuple[int, int, int]) -> Tensor:
        chunk, offset, tokens = row
        flat = self._chunks[chunk][offset : offset + tokens * self.token_numbers]
        return flat.view([size or tokens for size in self.layout])

    def _add_chunk(self, chunk: Tensor) -> None:
        self._chunks.append(chunk)
        self._free.append((len(self._chunks) - 1, 0, chunk.numel()))

    def _new_file(self, size: int) -> Tensor:
        """A mapped file of a name that no other process has; unless kept it has none at all and goes with this process."""
        with plain_disk_errors(self.folder, ELSEWHERE):
            handle, name = tempfile.mkstemp(prefix=f"{self.keep or 'rows'}.", suffix=".bin", dir=self.folder)
        path = Path(name)
        try:
            with plain_disk_errors(path, ELSEWHERE), os.fdopen(handle, "wb") as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)  # a full disk is told now, not by a signal on writing
                else:
                    file.truncate(size)
            chunk = self._map(path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        self.on_disk += size
        if self.keep:
            self._files.append(path)
        else:
            with contextlib.suppress(OSError):  # Windows keeps a mapped file's name
                path.unlink()
        return chunk

    def _map(self, path: Path) -> Tensor:
        numbers = path.stat().st_size // self.dtype.itemsize
        return torch.from_file(str(path), shared=True, size=numbers, dtype=self.dtype)

    def _reopen(self) -> None:
        if not self._index_path.is_file():
            return
        try:
            index = json.loads(self._index_path.read_text(encoding="utf-8"))
            paths = [self.folder / name for name in index["files"]]
            sizes = [path.stat().st_size // self.dtype.itemsize for path in paths]
            rows = {tuple(ids): (chunk, offset, len(ids)) for ids, chunk, offset in index["rows"]}
            ends = [(chunk, offset + tokens * self.token_numbers) for chunk, offset, tokens in rows.values()]
            if any(end > sizes[chunk] for chunk, end in ends):
                return
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            return  # a file is missing or cut short: encode again
        self._files, self._rows = paths, rows
        self._chunks = [self._map(path) for path in paths]
        self.on_disk = sum(size * self.dtype.itemsize for size in sizes)
        self.disk_left -= self.on_disk


def context_digest(*parts: object) -> str:
    """Short digest of what stands before the rows (base, dtype, ids, K/V): rows encoded under it can be exchanged."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            digest.update(f"{list(part.shape)}".encode())
            digest.update(part.float().cpu().contiguous().numpy().tobytes())
        else:
            digest.update(f"{part}|".encode())
    return digest.hexdigest()[:24]
