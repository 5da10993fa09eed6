"""The walk from a sentence to its attention, and pictures of weights."""
import xml.dom.minidom

import numpy as np
import pytest

import attend


def test_walk():
    walk = attend.explain()
    assert walk.words == "I Like Machine Learning And Deep Learning".split()
    np.testing.assert_allclose(walk.query, walk.embedded @ walk.query_weight, atol=1e-5)
    np.testing.assert_allclose(walk.scores, walk.query @ walk.key.T, atol=1e-5)
    np.testing.assert_allclose(walk.scaled_scores, walk.scores / np.sqrt(3), atol=1e-5)
    np.testing.assert_allclose(walk.output, walk.weights @ walk.value, atol=1e-5)
    assert walk.ids.dtype == np.int64 and walk.weights.dtype == np.float32 and walk.value.shape == (7, 3)
    assert "tensor(" in str(walk) and repr(walk).startswith("Explanation(['I',")
    assert str(walk) != walk.narrate() != walk.narrate("zh")
    other = attend.explain("b a", dictionary={"a": 0, "b": 1}, seed=1, embedding_dim=6, head_dim=2)
    assert list(other.ids) == [1, 0] and other.embedded.shape == (2, 6)


def test_what_does_not_fit_in_a_walk():
    for error, call in [(ValueError, lambda: attend.explain("Nobody knows")), (ValueError, lambda: attend.explain("")),
                        (TypeError, lambda: attend.explain("a", dictionary=["a"])), (TypeError, lambda: attend.explain("a", dictionary={"a": "b"})),
                        (ValueError, lambda: attend.explain(head_dim=0)), (TypeError, lambda: attend.explain(3)),
                        (ValueError, lambda: attend.explain("a", dictionary={"a": 5})), (ValueError, lambda: attend.explain().narrate("fr"))]:
        with pytest.raises(error):
            call()


def test_picture(tmp_path):
    weights = np.random.default_rng(0).random((3, 4)).astype(np.float32)
    picture = attend.heatmap(weights, query_tokens=["a", "<b>", "c"], key_tokens=["我", "喜欢", "x", "y"], title="One & all",
                             mask=np.tril(np.ones((3, 4), bool), 1), colormap="magma", vmin=0, vmax=1, size=(5, 4))
    assert picture._repr_svg_() == picture.svg()
    texts = [node.firstChild.data for node in xml.dom.minidom.parseString(picture.svg()).getElementsByTagName("text")]
    assert {"a", "<b>", "c", "我", "喜欢", "One & all"} <= set(texts)
    picture.save(tmp_path / "weights.svg")
    assert (tmp_path / "weights.svg").read_text() == picture.svg()
    assert repr(picture) == "Heatmap(weights [3, 4])" and picture.warnings == []
    assert len(picture.terminal(columns=60).splitlines()) >= 3
    assert attend.heatmap(np.ones((2, 3, 5, 5))).svg().count("<image") >= 1


def test_what_does_not_fit_in_a_picture(tmp_path):
    weights = np.eye(3)
    for error, call in [(ValueError, lambda: attend.heatmap(np.ones(3))), (ValueError, lambda: attend.heatmap(np.ones((0, 3)))),
                        (ValueError, lambda: attend.heatmap(weights, query_tokens=["a"])), (TypeError, lambda: attend.heatmap(weights, query_tokens="abc")),
                        (ValueError, lambda: attend.heatmap(weights, colormap="jet")), (TypeError, lambda: attend.heatmap("weights")),
                        (ValueError, lambda: attend.heatmap(weights).save("weights.gif")), (OSError, lambda: attend.heatmap(weights).save(tmp_path / "no" / "a.svg")),
                        (ValueError, lambda: attend.heatmap(weights, mask=np.ones((2, 2), bool)))]:
        with pytest.raises(error):
            call()
