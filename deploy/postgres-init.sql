-- Run once, by the image of Postgres, when its volume is empty: Dagster's own database
CREATE DATABASE dagster;
