import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest


@pytest.fixture(autouse=True)
def settings_stay():
    """Every test of a picture also shows that it leaves matplotlib's settings alone."""
    plt.switch_backend("agg")
    before = dict(mpl.rcParams)
    yield
    assert dict(mpl.rcParams) == before
    plt.close("all")
