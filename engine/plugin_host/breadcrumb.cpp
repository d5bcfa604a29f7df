#include "engine/plugin_host/breadcrumb.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <iterator>

#include "engine/base/folder.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
constexpr char kMagic[8] = {'S', 'Y', 'C', 'R', 'U', 'M', 'B', '1'};

// Field 22 of /proc/PID/stat: when it started, in ticks since boot. 0: there is no such process.
uint64_t start_of(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  size_t at = text.rfind(')');
  if (at == text.npos) return 0;
  for (int field = 2; field < 22; ++field) {
    at = text.find(' ', at + 1);
    if (at == text.npos) return 0;
  }
  return std::strtoull(text.c_str() + at + 1, nullptr, 10);
}

std::string boot_id() {
  std::string text;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> text;
  return text;
}

}  // namespace

struct Breadcrumbs::Page {
  char magic[8];
  uint64_t start;
  char boot[40];
  std::atomic<int32_t> signal;
  std::atomic<uint32_t> count;
  Trail trails[kMost];
};

std::string_view name(PluginCall call) {
  constexpr std::array kNames = {"none", "load", "init",  "shutdown", "find",   "route",
                                 "edit", "draw", "table", "metric",   "reader", "writer",
                                 "report"};
  return size_t(call) < kNames.size() ? kNames[size_t(call)] : "unknown";
}

Breadcrumbs::Breadcrumbs(const fs::path& folder) {
  const fs::path file = folder / ("running-" + std::to_string(::getpid()));
  void* mapped = MAP_FAILED;
  if (!folder.empty()) {
    const Descriptor descriptor(::open(file.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (descriptor && ::ftruncate(descriptor.get(), sizeof(Page)) == 0)
      mapped = ::mmap(nullptr, sizeof(Page), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor.get(), 0);
  }
  if (mapped == MAP_FAILED) {
    own_ = std::make_unique<Page>();
    page_ = own_.get();
    return;
  }
  file_ = file;
  page_ = static_cast<Page*>(mapped);
  const std::string boot = boot_id();
  std::memcpy(page_->magic, kMagic, sizeof kMagic);
  page_->start = start_of(::getpid());
  boot.copy(page_->boot, sizeof page_->boot - 1);
}

Breadcrumbs::~Breadcrumbs() {
  if (file_.empty()) return;
  std::error_code ignored;
  fs::remove(file_, ignored);
  ::munmap(page_, sizeof(Page));
}

Breadcrumbs::Trail* Breadcrumbs::begin(const std::string& plugin) {
  const uint32_t at = page_->count.load();
  if (at >= kMost) return nullptr;
  Trail& trail = page_->trails[at];
  plugin.copy(trail.plugin, sizeof trail.plugin - 1);
  page_->count.store(at + 1);
  return &trail;
}

std::string Breadcrumbs::inside() const {
  for (const Trail* trail : trails())
    if (const uint32_t call = trail->call.load())
      return std::string(trail->plugin) + " (" + std::string(name(PluginCall(call))) + ")";
  return {};
}

void Breadcrumbs::note_signal(int number) {
  page_->signal.store(number);
}

std::vector<const Breadcrumbs::Trail*> Breadcrumbs::trails() const {
  std::vector<const Trail*> out;
  for (uint32_t i = 0; i < std::min<uint32_t>(page_->count.load(), kMost); ++i) out.push_back(&page_->trails[i]);
  return out;
}

std::vector<Remains> Breadcrumbs::collect(const fs::path& folder) {
  std::vector<Remains> out;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (!name.starts_with("running-")) continue;
    const auto pid = pid_t(std::strtol(name.c_str() + 8, nullptr, 10));
    std::string bytes;
    if (std::ifstream file(entry->path(), std::ios::binary); file)
      bytes.assign(std::istreambuf_iterator<char>(file), {});
    if (bytes.size() != sizeof(Page) || std::memcmp(bytes.data(), kMagic, sizeof kMagic) != 0) continue;
    alignas(Page) char room[sizeof(Page)];
    std::memcpy(room, bytes.data(), sizeof room);
    const Page& page = *reinterpret_cast<const Page*>(room);
    const bool same_boot = std::string(page.boot, ::strnlen(page.boot, sizeof page.boot)) == boot_id();
    if (same_boot && page.start != 0 && start_of(pid) == page.start) continue;  // it runs
    for (uint32_t i = 0; i < std::min<uint32_t>(page.count.load(), kMost); ++i) {
      const Trail& trail = page.trails[i];
      const uint32_t call = trail.call.load();
      if (call != 0 || page.signal.load() != 0)
        out.push_back({std::string(trail.plugin, ::strnlen(trail.plugin, sizeof trail.plugin)), PluginCall(call)});
    }
    std::error_code ignored;
    fs::remove(entry->path(), ignored);
  }
  // A culprit by name frees those that were only there.
  if (std::any_of(out.begin(), out.end(), [](const Remains& one) { return one.call != PluginCall::kNone; }))
    std::erase_if(out, [](const Remains& one) { return one.call == PluginCall::kNone; });
  return out;
}

}  // namespace switchyard
