// A pickle without a memo, and a zip of stored entries around it.
#include "engine/trace/export/torch_file.h"

#include <zlib.h>

namespace switchyard {
namespace {

template <class T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

class Pickler {
 public:
  std::string pickle(const TorchDict& root) {
    out_ = std::string("\x80\x02", 2);
    dict(root);
    out_ += '.';
    return std::move(out_);
  }
  std::vector<std::string> storages;

 private:
  void text(std::string_view value) {
    out_ += 'X';
    put(out_, uint32_t(value.size()));
    out_ += value;
  }
  void integer(int64_t value) {
    out_ += '\x8a';
    out_ += '\x08';
    put(out_, value);
  }
  void tuple(const std::vector<int64_t>& values) {
    out_ += '(';
    for (const int64_t value : values) integer(value);
    out_ += 't';
  }
  void dict(const TorchDict& value) {
    out_ += "}(";
    for (const auto& [key, item] : value.items) {
      if (const auto* name = std::get_if<std::string>(&key))
        text(*name);
      else
        integer(std::get<int64_t>(key));
      if (const auto* tensor = std::get_if<TorchTensor>(&item))
        this->tensor(*tensor);
      else
        dict(*std::get<std::shared_ptr<TorchDict>>(item));
    }
    out_ += 'u';
  }
  void tensor(const TorchTensor& value) {
    const auto* whole = std::get_if<std::vector<int64_t>>(&value.values);
    const auto* real = std::get_if<std::vector<double>>(&value.values);
    const size_t count = whole ? whole->size() : real->size();
    out_ += "ctorch._utils\n_rebuild_tensor_v2\n((";
    text("storage");
    out_ += whole ? "ctorch\nLongStorage\n" : "ctorch\nDoubleStorage\n";
    text(std::to_string(storages.size()));
    text("cpu");
    integer(int64_t(count));
    out_ += "tQ";
    integer(0);
    tuple(value.shape);
    std::vector<int64_t> strides(value.shape.size(), 1);
    for (size_t axis = strides.size(); axis-- > 1;) strides[axis - 1] = strides[axis] * value.shape[axis];
    tuple(strides);
    out_ += '\x89';
    out_ += "ccollections\nOrderedDict\n)RtR";
    storages.emplace_back(whole ? reinterpret_cast<const char*>(whole->data()) : reinterpret_cast<const char*>(real->data()), count * 8);
  }

  std::string out_;
};

struct Zip {
  std::string bytes, directory;
  uint16_t entries = 0;

  // Data begin at multiples of 64 bytes, as torch has them.
  void add(const std::string& name, const std::string& data) {
    const auto crc = uint32_t(crc32(0, reinterpret_cast<const Bytef*>(data.data()), uInt(data.size())));
    const uint32_t at = uint32_t(bytes.size());
    const size_t begin = bytes.size() + 30 + name.size();
    const uint16_t padding = uint16_t((64 - (begin + 4) % 64) % 64 + 4);
    const auto header = [&](std::string& out) {
      put(out, uint16_t(0)), put(out, uint16_t(0)), put(out, uint16_t(0)), put(out, uint16_t(0x21));  // flags, stored, 1980-01-01
      put(out, crc), put(out, uint32_t(data.size())), put(out, uint32_t(data.size()));
      put(out, uint16_t(name.size()));
    };
    put(bytes, uint32_t(0x04034b50)), put(bytes, uint16_t(20));
    header(bytes);
    put(bytes, padding);
    bytes += name;
    put(bytes, uint16_t(0x4246)), put(bytes, uint16_t(padding - 4));
    bytes.append(size_t(padding) - 4, 'Z');
    bytes += data;
    put(directory, uint32_t(0x02014b50)), put(directory, uint16_t(20)), put(directory, uint16_t(20));
    header(directory);
    put(directory, uint16_t(0)), put(directory, uint16_t(0)), put(directory, uint16_t(0)), put(directory, uint16_t(0)), put(directory, uint32_t(0));
    put(directory, at);
    directory += name;
    ++entries;
  }

  std::string finish() {
    const uint32_t at = uint32_t(bytes.size());
    bytes += directory;
    put(bytes, uint32_t(0x06054b50)), put(bytes, uint32_t(0));
    put(bytes, entries), put(bytes, entries), put(bytes, uint32_t(directory.size())), put(bytes, at), put(bytes, uint16_t(0));
    return std::move(bytes);
  }
};

}  // namespace

std::string torch_file(const TorchDict& root, std::string_view name) {
  Pickler pickler;
  const std::string folder(name);
  Zip zip;
  zip.add(folder + "/data.pkl", pickler.pickle(root));
  zip.add(folder + "/byteorder", "little");
  for (size_t i = 0; i < pickler.storages.size(); ++i) zip.add(folder + "/data/" + std::to_string(i), pickler.storages[i]);
  zip.add(folder + "/version", "3\n");
  return zip.finish();
}

}  // namespace switchyard
