"""An OpenAI-style endpoint: how it is reached, what is asked and answered, and what that costs."""
