"""From a request to tokens: models and tokenizers, links, dispatch, and the drive of one job."""
