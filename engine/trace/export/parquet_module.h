// What the Parquet module offers the program: plain C, so that neither sees the other's library. The module carries
// libarrow and is loaded when the first Parquet file is written.
#pragma once

#include <cstdint>

namespace switchyard {

enum ParquetType : int { kParquetInt32, kParquetInt64, kParquetFloat, kParquetDouble, kParquetText };

struct ParquetColumn {
  const char* name;
  ParquetType type;
  const void* values;  // of one call of write(): `rows` of them; text: const char* each
};

// Takes the bytes of the file in order. nullptr, or what went wrong.
struct ParquetSink {
  void* context;
  const char* (*write)(void* context, const void* bytes, int64_t count);
};

// Functions that can fail give nullptr, or what went wrong: valid until the next call. One thread at a time.
struct ParquetModule {
  const char* (*open)(ParquetSink sink, const ParquetColumn* columns, int count, void** writer);
  const char* (*write)(void* writer, const ParquetColumn* columns, int count, int64_t rows);  // one row group
  const char* (*close)(void* writer);  // ends the file; frees the writer, whatever it gives
};
inline constexpr char kParquetEntry[] = "switchyard_parquet_module";
using ParquetEntry = const ParquetModule* (*)();

}  // namespace switchyard
