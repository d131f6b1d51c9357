"""The base image of the image tests: where its packages come from."""

from pathlib import Path

import pytest

from tests.support.base_image import PackageSource, package_source

LISTING = """http://a.example/debian bookworm main
http://a.example/debian bookworm contrib
http://b.example/security bookworm-security main
"""


def test_packages_of_the_base_image_come_from_the_sources_of_apt(tmp_path: Path) -> None:
    mirrors = tmp_path / "mirrors.txt"
    mirrors.write_text("http://c.example/ubuntu/\tpriority:1\nhttp://d.example/ubuntu/\tpriority:2\n")

    assert package_source(LISTING, "bookworm") == PackageSource(
        "bookworm", "http://a.example/debian", ("main", "contrib")
    )
    assert package_source(f"mirror+file:{mirrors} noble universe\n", "noble") == PackageSource(
        "noble", "http://c.example/ubuntu/", ("universe",)
    )
    with pytest.raises(AssertionError, match="apt-get update"):
        package_source(LISTING, "trixie")
