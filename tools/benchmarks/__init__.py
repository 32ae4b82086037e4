"""What `tools/benchmark.py --what ...` measures: one module each.

A module has

- `prepare(options) -> Callable[[], int]`: imports the project's modules (inside the function: in a
  worker the path begins with the checkout that is measured, which may be an older commit), builds
  everything and returns a function that does one round and says how many units it did. Units come
  from one round alone: nothing is prepared ahead while the other workers have their turn. The
  function may have an attribute `extra_bytes`: memory that a round has to move besides the
  operations that `benchmarks.counting` knows;
- `UNIT: str`: what is counted ("image"), and `DEFAULTS: dict`, its options;
- `VARIANTS: dict[str, dict]`: options of every variant that differ from the defaults. Beside
  options, an entry may hold "environment" (variables of the worker), "needs": "cuda",
  "on_request": True where it is measured only if `--variants` names it, and "uncounted": True where
  its floor is to be counted on another variant;
- `OLDER: tuple[str, ...]`: the variants that older commits have as well, for `--against`;
- optionally `FLOOR`: "counted" (`benchmarks.counting`), or the name of the variant that is the
  floor of the others, such as decoding alone; without it there is none. `FLOOR_BY`: the options
  that decide how much work there is (by default `("amp",)`): variants that agree in them share a
  floor.

Options are plain JSON values.  All have `device`, `threads` (0: PyTorch's choice) and `amp` ("off",
"bfloat16", "float16").
"""
