"""Corpus `folder`: anyone's recordings, clean and noise to be mixed or ready pairs.

Everything lies below `sources/<corpus>/`, which may be a link. wav, flac and ogg of any rate and length;
of several channels the first is used. The speaker of a file is the folder that holds it (for files that lie
flat in the clean folder: its name up to the first "_"), the kind of a noise the folder that holds it, the
room of a response the folder that holds it (for files that lie flat in theirs: the name).
Splits come from lists, or whole speakers and noise recordings are dealt out by the shares in the settings.
"""

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Iterator
from pathlib import Path, PurePosixPath

from diffse.audio import SUFFIXES
from diffse.data.corpora import trees
from diffse.data.corpora.trees import relative
from diffse.data.manifest import SPLITS
from diffse.data.parallel import Workers
from diffse.data.recordings import Noise, Recordings, Rejected, Rir, Speech, base_id
from diffse.errors import DiffseError
from diffse.settings import FolderCorpus, SplitLists


def find(settings: FolderCorpus, source: Path, workspace: Path, workers: Workers) -> Recordings:
    """List the recordings of `source` with their splits.

    Nothing is decoded or written, so `workspace` and `workers` stay unused. DiffseError: a folder or list
    that is missing or empty, a path that leaves `source`, too few speakers or noise recordings to split.
    """
    if not source.is_dir():
        raise DiffseError(f"{source}: no such folder; put the recordings there, or a link to them")
    return _find_pairs(settings, source) if settings.layout == "pairs" else _find_mix(settings, source)


# ------------------------------------------------------------------------------------- clean and noise


def _find_mix(settings: FolderCorpus, source: Path) -> Recordings:
    if settings.noise and not _has_lists(settings.clean_lists) and not _has_lists(settings.noise_lists):
        _refuse_overlap(source, settings.clean, settings.noise)
    clean = _split_files(settings, source, settings.clean, settings.clean_lists, "clean")
    noise = (
        _split_files(settings, source, settings.noise, settings.noise_lists, "noise") if settings.noise else {}
    )
    genders = _genders(source, settings.speakers)
    found = Recordings(rirs=_find_rirs(settings, source))
    for file, split in sorted(clean.items()):
        speaker = _speaker(file, settings.clean)
        name = base_id(speaker, PurePosixPath(file).stem)
        found.speech.append(Speech(name, split, speaker, source / file, file, genders.get(speaker, "")))
    for file, split in sorted(noise.items()):
        parent = PurePosixPath(file).parent
        kind = "noise" if parent == PurePosixPath(settings.noise) else parent.name
        found.noise.append(Noise(split, kind or "noise", source / file, file))
    return found


def _find_rirs(settings: FolderCorpus, source: Path) -> list[Rir]:
    """Measured responses with their rooms, whole rooms in one split."""
    rooms = settings.rooms
    if rooms.kind != "measured":
        return []
    if _has_lists(rooms.lists):
        split_of = _by_lists(source, rooms.lists, "room response")
    else:
        files = _audio_files(source, rooms.folder)
        advice = f"{source / rooms.folder}: {{found}} rooms"
        split_of = _deal(
            {file: _room(file, rooms.folder) for file in files}, settings, advice, "give rooms.lists"
        )
    return [
        Rir(split, _room(file, rooms.folder), source / file, file) for file, split in sorted(split_of.items())
    ]


def _room(file: str, folder: str) -> str:
    path = PurePosixPath(file)
    flat = path.parent in (PurePosixPath(folder), PurePosixPath("."))
    return path.stem if flat else path.parent.name


def _genders(source: Path, name: str) -> dict[str, str]:
    """Speaker -> "f" or "m", from the table of the setting `speakers`; empty without one."""
    genders: dict[str, str] = {}
    for line, text in _lines(source, name) if name else ():
        speaker, _, gender = text.partition("\t")
        if gender.strip().lower()[:1] not in ("f", "m"):
            raise DiffseError(f"{source / name}, line {line}: write a speaker, a tab, and f or m")
        genders[speaker.strip()] = gender.strip().lower()[0]
    return genders


def _split_files(
    settings: FolderCorpus, source: Path, folder: str, lists: SplitLists, what: str
) -> dict[str, str]:
    """File -> split, by the lists or else by the shares."""
    if _has_lists(lists):
        return _by_lists(source, lists, what)
    files = _audio_files(source, folder)
    if what == "clean":
        groups = {file: _speaker(file, folder) for file in files}
        return _deal(groups, settings, f"{source / folder}: {{found}} speakers", "give clean_lists")
    dealt: dict[str, str] = {}
    for group in _noise_groups(files):
        advice = f"{source / folder}: {{found}} noise recordings"
        dealt |= _deal({file: file for file in group}, settings, advice, "give noise_lists")
    return dealt


def _has_lists(lists: SplitLists) -> bool:
    return any(getattr(lists, split) for split in SPLITS)


def _noise_groups(files: list[str]) -> Iterator[list[str]]:
    """Noise recordings that are dealt out together: a kind, so that each split hears it, or the small kinds."""
    kinds = defaultdict(list)
    for file in files:
        kinds[PurePosixPath(file).parent].append(file)
    large = [group for group in kinds.values() if len(group) >= len(SPLITS)]
    small = [file for group in kinds.values() if len(group) < len(SPLITS) for file in group]
    if large and len(small) < len(SPLITS):
        large[0] = large[0] + small
        small = []
    yield from large
    if small:
        yield small


def _deal(groups: dict[str, Hashable], settings: FolderCorpus, found: str, advice: str) -> dict[str, str]:
    """Give whole groups to the splits by `speaker_shares`, at least one to each split with a share.

    The order is that of a checksum over (seed, name), so it depends on neither file system nor alphabet.
    """
    names = sorted(set(groups.values()), key=lambda name: _rank(settings.seed, str(name)))
    wanted = [split for split, share in zip(SPLITS, settings.speaker_shares, strict=True) if share > 0]
    if not wanted or min(settings.speaker_shares) < 0:
        raise DiffseError(f"speaker_shares {settings.speaker_shares}: give shares of 0 or more, not all 0")
    if len(names) < len(wanted):
        raise DiffseError(
            f"{found.format(found=len(names))}, too few for {len(wanted)} splits; {advice} or add more"
        )
    counts = _counts(len(names), settings.speaker_shares)
    order = [split for split, count in zip(SPLITS, counts, strict=True) for _ in range(count)]
    split_of = dict(zip(names, order, strict=True))
    return {file: split_of[name] for file, name in groups.items()}


def _counts(total: int, shares: tuple[float, float, float]) -> list[int]:
    """Whole numbers that sum to `total`, near the shares, and at least 1 where the share is positive."""
    scale = total / sum(shares)
    counts = [max(1, round(share * scale)) if share > 0 else 0 for share in shares]
    while sum(counts) != total:
        step = 1 if sum(counts) < total else -1
        movable = [k for k, share in enumerate(shares) if share > 0 and counts[k] + step >= 1]
        counts[max(movable, key=lambda k: step * (shares[k] * scale - counts[k]))] += step
    return counts


def _rank(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def _speaker(file: str, folder: str) -> str:
    path = PurePosixPath(file)
    flat = path.parent in (PurePosixPath(folder), PurePosixPath("."))
    return path.stem.partition("_")[0] or path.stem if flat else path.parent.name


# ----------------------------------------------------------------------------------------- ready pairs


def _find_pairs(settings: FolderCorpus, source: Path) -> Recordings:
    if settings.pairs_list:
        pairs, unmatched = _listed_pairs(source, settings.pairs_list), []
    else:
        pairs, unmatched = _matched_pairs(settings, source)
    found = Recordings(rejected=unmatched)
    genders = _genders(source, settings.speakers)
    for clean, noisy in pairs:
        speaker = _speaker(clean, settings.clean)
        found.speech.append(
            Speech(
                id=base_id(speaker, PurePosixPath(clean).stem),
                split=settings.pairs_split,
                speaker=speaker,
                path=source / clean,
                source=clean,
                gender=genders.get(speaker, ""),
                noisy_path=source / noisy,
                noisy_source=noisy,
            )
        )
    return found


def _listed_pairs(source: Path, name: str) -> list[tuple[str, str]]:
    pairs = []
    for line, text in _lines(source, name):
        fields = text.split("\t")
        if len(fields) != 2:
            raise DiffseError(
                f"{source / name}, line {line}: write a clean and a noisy path with one tab between"
            )
        pairs.append(tuple(_inside(field, source / name, line) for field in fields))
    _refuse_repeats([clean for clean, _ in pairs], source / name)
    return pairs


def _matched_pairs(settings: FolderCorpus, source: Path) -> tuple[list[tuple[str, str]], list[Rejected]]:
    """Join the two folders on the path below them without its suffix; what has no partner is refused."""
    _refuse_overlap(source, settings.clean, settings.noisy)
    rejected: list[Rejected] = []
    clean, noisy = (_by_name(source, folder, rejected) for folder in (settings.clean, settings.noisy))
    for ours, theirs, folder in ((clean, noisy, settings.noisy), (noisy, clean, settings.clean)):
        rejected += [
            Rejected(ours[key], f"no file of this name in {folder}") for key in ours.keys() - theirs.keys()
        ]
    return [(clean[key], noisy[key]) for key in sorted(clean.keys() & noisy.keys())], rejected


def _by_name(source: Path, folder: str, rejected: list[Rejected]) -> dict[str, str]:
    files: dict[str, str] = {}
    for file in _audio_files(source, folder):
        key = str(PurePosixPath(file).relative_to(folder).with_suffix(""))
        if files.setdefault(key, file) != file:
            rejected.append(Rejected(file, f"has the same name as {files[key]}"))
    return files


def _refuse_overlap(source: Path, first: str, second: str) -> None:
    one, other = PurePosixPath(first), PurePosixPath(second)
    if one.is_relative_to(other) or other.is_relative_to(one):
        raise DiffseError(f"{source}: the folders '{first}' and '{second}' overlap; keep the two kinds apart")


# --------------------------------------------------------------------------------------- lists, folders


def _by_lists(source: Path, lists: SplitLists, what: str) -> dict[str, str]:
    split_of: dict[str, str] = {}
    for split in SPLITS:
        name = getattr(lists, split)
        if not name:
            continue
        files = [_inside(text, source / name, line) for line, text in _lines(source, name)]
        _refuse_repeats(files, source / name)
        for file in files:
            if split_of.setdefault(file, split) != split:
                other = source / getattr(lists, split_of[file])
                raise DiffseError(
                    f"{source / name}: {what} file '{file}' is also in {other}; keep it in one split"
                )
    return split_of


def _lines(source: Path, name: str) -> list[tuple[int, str]]:
    """(line number, text) of a list; empty lines and comments (#) are skipped."""
    path = source / _inside(name, source, 0)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DiffseError(f"{path}: no such list; it is looked for in the corpus's source folder") from None
    except (UnicodeDecodeError, OSError):
        raise DiffseError(f"{path}: not a UTF-8 text file; give one relative path a line") from None
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
    if not lines:
        raise DiffseError(f"{path}: names no file; give one relative path a line, or leave the setting empty")
    return lines


def _inside(text: str, path: Path, line: int) -> str:
    """`text` as a path below the source folder, or a DiffseError: a list must not reach other files."""
    file = PurePosixPath(text.strip())
    if file.is_absolute() or ".." in file.parts:
        where = f"{path}, line {line}" if line else str(path)
        raise DiffseError(
            f"{where}: '{text}' leaves the source folder; give paths relative to it, without '..'"
        )
    return str(file)


def _refuse_repeats(files: list[str], path: Path) -> None:
    seen: set[str] = set()
    for file in files:
        if file in seen:
            raise DiffseError(f"{path}: names '{file}' twice; keep it once")
        seen.add(file)


def _audio_files(source: Path, folder: str) -> list[str]:
    """Audio files below `source`/`folder` as paths relative to `source`, sorted. Hidden ones are skipped."""
    top = source / _inside(folder, source, 0)
    if not top.is_dir():
        raise DiffseError(f"{top}: no such folder; name the folder in the settings of the corpus")
    files = sorted(relative(path, source) for path in trees.files(top, SUFFIXES))
    if not files:
        raise DiffseError(f"{top}: holds no audio ({', '.join(SUFFIXES)})")
    return files
