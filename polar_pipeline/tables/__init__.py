"""Files of posts that people have, read row by row: delimited text, JSON, Parquet, datasets folders."""
