"""The paper's tables: published figures, runs that give ours, and what is made of both."""
