from dataclasses import replace

from pipeline.run.handshake import CodeIdentity, code_identities, compare_code, digest_of_folder


def test_the_digest_follows_names_and_contents_and_not_the_place(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "one.py").write_text("x = 1\n")
        (tmp_path / name / "sub" / "two.py").write_text("y = 2\n")
    first, second = tmp_path / "a", tmp_path / "b"
    assert digest_of_folder(first) == digest_of_folder(second)
    (second / "notes.txt").write_text("not code")
    assert digest_of_folder(first) == digest_of_folder(second)
    (second / "sub" / "two.py").write_text("y = 3\n")
    assert digest_of_folder(first) != digest_of_folder(second)
    (second / "sub" / "two.py").unlink()
    (second / "sub" / "three.py").write_text("y = 2\n")
    assert digest_of_folder(first) != digest_of_folder(second)


def test_this_process_knows_its_code():
    identities = code_identities()
    assert [identity.package for identity in identities] == ["pipeline", "sam4em_core"]
    assert identities[0].path.endswith("pipeline")
    assert len(identities[0].digest) == 64


def test_a_difference_names_both_sides():
    ours = (CodeIdentity("pipeline", "/a/pipeline", "1" * 64), CodeIdentity("sam4em_core", "/a/core", "2" * 64))
    assert compare_code(ours, ours, "tcp://w") is None
    moved = (replace(ours[0], path="/elsewhere"), ours[1])
    assert compare_code(ours, moved, "tcp://w") is None
    other = (ours[0], replace(ours[1], path="/b/core", digest="3" * 64))
    problem = compare_code(ours, other, "tcp://w")
    assert "tcp://w" in problem
    assert "sam4em_core at /a/core (222222222222)" in problem
    assert "sam4em_core at /b/core (333333333333)" in problem
