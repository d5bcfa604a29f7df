// See files.h.
#include "engine/trace/export/files.h"

#include <system_error>

#include "engine/base/text.h"

namespace switchyard {

namespace fs = std::filesystem;

ExportFiles::~ExportFiles() {
  const bool unfinished = !open_.empty();
  open_.clear();  // removes what was not committed
  std::error_code ignored;
  if (made_folder_ && unfinished) fs::remove(target_, ignored);  // if it is empty
}

Result<void> ExportFiles::begin() { return begin_path(target_); }

Result<void> ExportFiles::begin(const std::string& name) {
  std::error_code error;
  if (!dry_run_ && !fs::is_directory(target_, error)) {
    if (!fs::create_directory(target_, error))
      return fail(ErrorCode::kOutput, "could not be made a folder: " + (error ? error.message() : "a file of that name is there") + ".", printable(target_.string(), 400));
    made_folder_ = true;
  }
  return begin_path(target_ / name);
}

Result<void> ExportFiles::begin_path(fs::path path) {
  std::error_code ignored;
  if (overwrite_ == Overwrite::kRefuse && fs::exists(fs::symlink_status(path, ignored)))
    return fail(ErrorCode::kOutput, "exists already.", printable(path.string(), 400), "Choose another name, or overwrite it with --force.");
  if (!dry_run_) {
    SY_TRY(AtomicFile file, AtomicFile::create(path, overwrite_));
    open_.push_back(std::make_unique<AtomicFile>(std::move(file)));
  }
  files_.push_back({std::move(path), 0});
  return {};
}

Result<void> ExportFiles::write(std::string_view bytes) {
  files_.back().bytes += bytes.size();
  return dry_run_ ? Result<void>{} : open_.back()->write(bytes);
}

Result<std::vector<WrittenFile>> ExportFiles::finish() {
  for (const auto& file : open_) SY_CHECK(file->commit());
  open_.clear();
  return files_;
}

}  // namespace switchyard
