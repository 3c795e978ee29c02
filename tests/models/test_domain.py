"""Which images are like the training images: by colour, camera, shape and features."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from s5mars.data.resolution import FULL, Resolution
from s5mars.models.domain import Domain, FeatureCloud, Verdict, camera_of, is_colour
from s5mars.products import read_info

RANDOM = np.random.default_rng(0)
GREY = np.full((40, 60, 3), 90, np.uint8)
COLOUR = GREY + np.array([60, 20, 0], np.uint8)
NAVCAM = Domain(images=50, colour=0.0, cameras={"MSL Navcam": 50}, sides=(256, 256), shape=1.5)


def test_distance_is_that_of_a_gaussian() -> None:
    # Two directions of known variance in the plane; nothing is left for a third one.
    cloud = FeatureCloud(
        mean=np.array([1, 2, 0], np.float32), components=np.eye(2, 3, dtype=np.float32),
        variances=np.array([4, 9, 0.25], np.float32), limit=1.0,
    )  # fmt: skip
    points = [[1, 2, 0], [3, 2, 0], [1, 5, 0], [3, 5, 0], [1, 2, 1]]
    np.testing.assert_allclose(cloud.distances(points), [0, 1, 1, 2**0.5, 2])


def test_fit_finds_the_covariance() -> None:
    covariance = np.array([[4.0, 1.2, 0], [1.2, 1.0, 0.3], [0, 0.3, 0.5]])
    points = RANDOM.multivariate_normal([5, 0, -2], covariance, 4000)
    found = FeatureCloud.fit(points)
    others = RANDOM.multivariate_normal([5, 0, -2], covariance, 500)
    centred = others - [5, 0, -2]
    exact = np.sqrt(np.einsum("ni,ij,nj->n", centred, np.linalg.inv(covariance), centred))
    np.testing.assert_allclose(found.distances(others), exact, rtol=0.1)
    # The limit is the quantile of 0.99 of a chi distribution with three degrees of freedom.
    assert found.limit == pytest.approx(3.368, abs=0.15)


@pytest.mark.parametrize("images", [20, 60])
def test_fewer_images_than_channels(images: int) -> None:
    mixing = RANDOM.normal(size=(5, 100))
    points = RANDOM.normal(size=(images + 200, 5)) @ mixing
    points += 0.1 * RANDOM.normal(size=points.shape)
    cloud = FeatureCloud.fit(points[:images])
    assert (cloud.distances(points[images:]) > cloud.limit).mean() < 0.15
    far = RANDOM.normal(size=(50, 100)) * points.std()  # of the same size, in other directions
    assert (cloud.distances(far) > cloud.limit).all()


def test_neighbouring_frames_do_not_make_the_limit_tight() -> None:
    places = RANDOM.normal(size=(20, 8))
    frames = np.repeat(places, 10, 0) + 0.01 * RANDOM.normal(size=(200, 8))
    cloud = FeatureCloud.fit(frames)
    assert (cloud.distances(RANDOM.normal(size=(100, 8))) > cloud.limit).mean() < 0.3


def test_an_encoder_with_constant_channels() -> None:
    points = np.zeros((30, 6))
    points[:, 0] = RANDOM.normal(size=30)
    cloud = FeatureCloud.fit(points)
    assert np.isfinite(cloud.distances(points)).all()
    assert FeatureCloud.fit(np.ones((30, 6))).distances(np.ones((1, 6)))[0] == 0


@pytest.mark.parametrize(
    ("image", "share", "reasons"),
    [
        (GREY, 0.0, ()),
        (COLOUR, 0.0, ("colour image",)),
        (GREY, 1.0, ("grey image",)),
        (COLOUR, 1.0, ()),
        (GREY, 0.5, ()),
        (COLOUR, 0.5, ()),
    ],
)
def test_grey_and_colour(image: np.ndarray, share: float, reasons: tuple[str, ...]) -> None:
    verdict = replace(NAVCAM, colour=share).judge(image, None, resolution=FULL)
    assert verdict == Verdict(reasons, None)
    assert verdict.outside is bool(reasons)


def test_black_borders_are_not_grey() -> None:
    bordered = np.zeros((200, 200, 3), np.uint8)
    bordered[:40, :60] = COLOUR
    assert is_colour(bordered) and not is_colour(np.zeros_like(bordered))


def test_shape_counts_where_every_image_gets_the_same_side() -> None:
    panorama = np.full((20, 100, 3), 90, np.uint8)
    assert not NAVCAM.judge(panorama, None, resolution=FULL).outside
    verdict = NAVCAM.judge(panorama, None, resolution=Resolution.parse("256"))
    assert verdict.reasons == ("elongated shape",)


@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        ("NRB_516721703EDR_F0540992CCAM15900M1.IMG", ()),  # the other eye is the same camera
        ("NLF_0670_0726421423_362ECM_N0320604NCAM08111_01_095J01.png", ("camera M2020 Navcam",)),
        ("0042ML0001930000102057E01_DXXX.jpg", ("camera MSL Mastcam",)),
        ("whatever.png", ()),
    ],
)
def test_cameras(name: str, reasons: tuple[str, ...]) -> None:
    info = read_info(name)
    assert NAVCAM.with_camera(Verdict(), info).reasons == reasons
    assert NAVCAM.with_camera(Verdict(), info.row()).reasons == reasons
    # A model whose training images do not say their camera cannot tell.
    unknown = replace(NAVCAM, cameras={"MSL Navcam": 20})
    assert not unknown.with_camera(Verdict(), info).outside


def test_camera_without_mission() -> None:
    assert camera_of({"camera": "Pancam Left", "mission": None}) == "Pancam"
    assert camera_of({}) is None


def test_features_decide_beyond_the_limit() -> None:
    cloud = replace(FeatureCloud.fit(RANDOM.normal(size=(100, 4))), limit=3.0)
    domain = replace(NAVCAM, features=cloud)
    near = domain.judge(GREY, np.zeros(4, np.float32), resolution=FULL)
    assert not near.outside and near.distance is not None and near.distance < 0.2
    far = domain.judge(GREY, np.full(4, 9, np.float32), resolution=FULL)
    assert far.reasons == ("unusual features",) and far.distance is not None and far.distance > 4
    broken = domain.judge(GREY, np.full(4, np.nan, np.float32), resolution=FULL)
    assert broken.outside


def test_round_trip() -> None:
    cloud = FeatureCloud.fit(RANDOM.normal(size=(40, 6)))
    domain = replace(NAVCAM, features=cloud)
    facts = json.loads(json.dumps(domain.to_dict()))
    again = Domain.from_dict(facts, domain.arrays())
    assert again.features is not None
    assert replace(again, features=None) == NAVCAM
    points = RANDOM.normal(size=(5, 6))
    np.testing.assert_array_equal(again.features.distances(points), cloud.distances(points))
    assert Domain.from_dict(facts, {}) == NAVCAM


@pytest.mark.parametrize("name", ["mean", "components", "variances"])
def test_damaged_arrays(name: str) -> None:
    domain = replace(NAVCAM, features=FeatureCloud.fit(RANDOM.normal(size=(40, 6))))
    arrays = domain.arrays()
    for wrong in (arrays[name][:-1], arrays[name] * np.float32("nan")):
        with pytest.raises((ValueError, IndexError)):
            Domain.from_dict(domain.to_dict(), {**arrays, name: wrong})


def test_the_rule_says_what_it_looks_at() -> None:
    said = NAVCAM.rule(Resolution.parse("256"))
    assert said == (
        "An image is out of domain if it is not grey, if its label or file name names a camera "
        "other than MSL Navcam, or if it is more elongated than 3:1."
    )
    assert replace(NAVCAM, shape=1.25).rule(Resolution.parse("256")).endswith("than 2.5:1.")
    assert NAVCAM.about == "grey images of MSL Navcam, 256 pixels"
    assert replace(NAVCAM, colour=0.4, cameras={}).rule(FULL) == ""
