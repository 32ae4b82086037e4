// Stands in for CUDA's header where the tests compile the kernels for the CPU, to check their
// logic without a GPU.  A block's threads run as coroutines (ucontext), one at a time, and change
// over only at warp synchronisations and shuffles: in ascending or in descending order, as
// emulation_descending says, so that a missing synchronisation is wrong in at least one order.
// Blocks run one after the other, and an atomic addition is a plain one.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(threads)
#define __shared__ static
#define UNIPHD_DEVICE_ASSERT(condition) \
  (static_cast<void>((condition) || (emulation_failed_assertions += 1)))

using cudaStream_t = void*;
using cudaError_t = int;
using std::floor;
using std::min;

struct float4 {
  float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  cudaStream_t stream;
};

inline thread_local dim3 gridDim, blockIdx, threadIdx;
inline thread_local int emulation_failed_assertions = 0;
inline thread_local bool emulation_descending = false;

namespace emulation {

constexpr int kLanes = 32;

struct Thread {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  bool finished = false;
};

struct Warp {
  int arrived = 0;
  int generation = 0;
  alignas(16) char slots[kLanes][16];
};

struct Block {
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  ucontext_t scheduler;
  std::function<void()> body;
  unsigned current = 0;
};

inline thread_local Block* block = nullptr;

inline void pause() {
  const unsigned mine = block->current;
  swapcontext(&block->threads[mine].context, &block->scheduler);
}

inline void synchronise_warp() {
  Warp& warp = block->warps[block->current / kLanes];
  const int generation = warp.generation;
  if (++warp.arrived == kLanes) {
    warp.arrived = 0;
    ++warp.generation;
  }
  while (warp.generation == generation) pause();
}

inline void run_thread() {
  block->body();
  block->threads[block->current].finished = true;
  pause();
}

// Runs all threads of one block; false when they wait for each other forever.
inline bool run_block(unsigned threads, const std::function<void()>& body) {
  Block here;
  block = &here;
  here.body = body;
  here.threads.resize(threads);
  here.warps.resize(threads / kLanes);
  for (Thread& thread : here.threads) {
    constexpr size_t kStack = 256 * 1024;
    thread.stack.reset(new char[kStack]);
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.get();
    thread.context.uc_stack.ss_size = kStack;
    thread.context.uc_link = nullptr;
    makecontext(&thread.context, run_thread, 0);
  }
  unsigned left = threads;
  for (int64_t turns = 0; left > 0; ++turns) {
    if (turns > 1000000) return false;
    for (unsigned i = 0; i < threads; ++i) {
      here.current = emulation_descending ? threads - 1 - i : i;
      Thread& thread = here.threads[here.current];
      if (thread.finished) continue;
      threadIdx = dim3(here.current);
      swapcontext(&here.scheduler, &thread.context);
      if (thread.finished) --left;
    }
  }
  return true;
}

}  // namespace emulation

inline void __syncwarp() { emulation::synchronise_warp(); }

template <typename T>
T __shfl_xor_sync(unsigned /*mask*/, T value, int lane_mask) {
  emulation::Warp& warp = emulation::block->warps[emulation::block->current / emulation::kLanes];
  const int lane = emulation::block->current % emulation::kLanes;
  std::memcpy(warp.slots[lane], &value, sizeof(T));
  emulation::synchronise_warp();
  T result;
  std::memcpy(&result, warp.slots[lane ^ lane_mask], sizeof(T));
  emulation::synchronise_warp();
  return result;
}

template <typename T>
void atomicAdd(T* target, T term) {
  *target += term;
}
inline void atomicAdd(float4* target, float4 term) {
  target->x += term.x;
  target->y += term.y;
  target->z += term.z;
  target->w += term.w;
}

template <typename... Expected, typename... Arguments>
cudaError_t cudaLaunchKernelEx(
    const cudaLaunchConfig_t* config, void (*kernel)(Expected...), Arguments... arguments) {
  gridDim = config->gridDim;
  for (unsigned i = 0; i < config->gridDim.x; ++i) {
    blockIdx = dim3(i);
    blockIdx.y = blockIdx.z = 0;
    if (!emulation::run_block(config->blockDim.x, [&] { kernel(arguments...); })) return 1;
  }
  return 0;
}
