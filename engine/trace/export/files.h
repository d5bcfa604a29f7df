// The files of one export: written under temporary names, given their own together at the end, or only measured.
// One thread at a time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/atomic_file.h"
#include "engine/base/result.h"

namespace switchyard {

struct WrittenFile {
  std::filesystem::path path;
  uint64_t bytes = 0;
};

class ExportFiles {
 public:
  // dry_run: nothing is written, sizes are counted.
  ExportFiles(std::filesystem::path target, Overwrite overwrite, bool dry_run) : target_(std::move(target)), overwrite_(overwrite), dry_run_(dry_run) {}
  ~ExportFiles();

  // The target itself, or a file of that name in the target as a folder, which is made if it is not there. All writes go to
  // the file that was begun last.
  Result<void> begin();
  Result<void> begin(const std::string& name);
  Result<void> write(std::string_view bytes);
  // Gives every file its name.
  Result<std::vector<WrittenFile>> finish();

 private:
  Result<void> begin_path(std::filesystem::path path);
  std::filesystem::path target_;
  Overwrite overwrite_;
  bool dry_run_, made_folder_ = false;
  std::vector<WrittenFile> files_;
  std::vector<std::unique_ptr<AtomicFile>> open_;
};

}  // namespace switchyard
