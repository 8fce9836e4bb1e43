"""storecast: demand forecasts for every store, trained in parallel, kept in MLflow, served by Trygon."""

__version__ = "0.1.0"
