// Large tensors on the CPU take the memory of earlier ones.
//
// The system's allocator maps fresh pages for every large tensor and hands them back when it is
// freed; the pages are zeroed and mapped again for the next one, which took a third of a training
// step.  Here freed blocks wait for a tensor of about their size.

#include <c10/core/CPUAllocator.h>
#include <torch/library.h>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

#include <algorithm>
#include <list>
#include <map>
#include <mutex>
#include <unordered_map>

namespace uniphd::cpu {
namespace {

// PyTorch's own allocator has the smaller tensors to itself.
constexpr size_t least_bytes = size_t(1) << 20;

class KeepingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void* const data = bytes < least_bytes ? plain_->raw_allocate(bytes) : take(rounded(bytes));
    return {data, data, &release, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return &release;
  }
  void copy_data(void* target, const void* source, size_t bytes) const override {
    default_copy_data(target, source, bytes);
  }
  // Never destroyed: tensors may outlive every static object.
  static KeepingAllocator& instance() {
    static auto* const allocator = new KeepingAllocator();
    return *allocator;
  }

 private:
  KeepingAllocator() {
#if defined(__unix__) || defined(__APPLE__)
    // A process that is forked (a loader's worker) must not inherit the lock of another thread.
    pthread_atfork(
        [] { instance().mutex_.lock(); }, [] { instance().mutex_.unlock(); },
        [] { instance().mutex_.unlock(); });
#endif
  }

  struct Block {
    void* data;
    size_t bytes;
  };
  using Blocks = std::list<Block>;

  // Sixteen sizes between two powers of two, whole pages.
  static size_t rounded(size_t bytes) {
    size_t unit = 4096;
    while (unit * 16 < bytes) unit *= 2;
    return (bytes + unit - 1) / unit * unit;
  }

  void* take(size_t bytes) {
    const std::lock_guard<std::mutex> guard(mutex_);
    const auto found = by_size_.lower_bound(bytes);
    if (found != by_size_.end() && found->first <= bytes + bytes / 4) {
      const Block block = *found->second;
      waiting_.erase(found->second);
      by_size_.erase(found);
      waiting_bytes_ -= block.bytes;
      use(block);
      return block.data;
    }
    // What waits may be a quarter of what was ever in use at once: the process grows no further.
    const size_t most = std::max(most_used_bytes_, used_bytes_ + bytes);
    while (!waiting_.empty() && used_bytes_ + bytes + waiting_bytes_ > most + most / 4) {
      drop_oldest();
    }
    void* const data = plain_->raw_allocate(bytes);
    use({data, bytes});
    return data;
  }

  void use(const Block& block) {
    used_.emplace(block.data, block.bytes);
    used_bytes_ += block.bytes;
    most_used_bytes_ = std::max(most_used_bytes_, used_bytes_);
  }

  void drop_oldest() {
    const auto oldest = waiting_.begin();
    const auto [first, last] = by_size_.equal_range(oldest->bytes);
    for (auto entry = first; entry != last; ++entry) {
      if (entry->second == oldest) {
        by_size_.erase(entry);
        break;
      }
    }
    waiting_bytes_ -= oldest->bytes;
    plain_->raw_deallocate(oldest->data);
    waiting_.erase(oldest);
  }

  static void release(void* data) {
    instance().give(data);
  }

  void give(void* data) {
    {
      const std::lock_guard<std::mutex> guard(mutex_);
      const auto found = used_.find(data);
      if (found != used_.end()) {
        const Block block{data, found->second};
        used_.erase(found);
        used_bytes_ -= block.bytes;
        waiting_bytes_ += block.bytes;
        by_size_.emplace(block.bytes, waiting_.insert(waiting_.end(), block));
        return;
      }
    }
    plain_->raw_deallocate(data);
  }

  c10::Allocator* const plain_ = c10::GetDefaultCPUAllocator();
  std::mutex mutex_;
  std::unordered_map<void*, size_t> used_;
  Blocks waiting_;  // the longest first
  std::multimap<size_t, Blocks::iterator> by_size_;
  size_t used_bytes_ = 0, waiting_bytes_ = 0, most_used_bytes_ = 0;
};

void keep_freed_memory() {
  c10::SetCPUAllocator(&KeepingAllocator::instance(), /*priority=*/1);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(uniphd, library) {
  library.def("keep_freed_memory() -> ()", &keep_freed_memory);
}

}  // namespace uniphd::cpu
