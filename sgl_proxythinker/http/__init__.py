"""The HTTP application around SGLang's: what it refuses, and what its answers and errors say."""
