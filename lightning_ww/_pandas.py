"""The import of pandas, with an error that says how to install it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas


def data_frame(call: str) -> type[pandas.DataFrame]:
    """Return the class `pandas.DataFrame` for the function named ``call``.

    Raises:
        ModuleNotFoundError: If pandas is not installed; the message names the call and the packages to install.
    """
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"`{call}()` needs pandas: `pip install lightning-ww[pandas]` or `pip install pandas`."
        ) from error
    return pandas.DataFrame
