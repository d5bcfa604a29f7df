# The commit that is built, as a unit of its own: only it is compiled again, and only those who ask are linked again,
# when the commit changes. Whoever wants it links switchyard_build_info (engine/base/build_info.h).
set(_commit_unit ${CMAKE_BINARY_DIR}/generated/build_commit.cpp)
add_custom_target(switchyard_commit BYPRODUCTS ${_commit_unit}
  COMMAND ${CMAKE_COMMAND} -DSOURCE=${CMAKE_SOURCE_DIR} -DOUT=${_commit_unit} -P ${CMAKE_SOURCE_DIR}/cmake/write_commit.cmake)
add_library(switchyard_build_info STATIC ${CMAKE_SOURCE_DIR}/engine/base/build_info.cpp ${_commit_unit})
add_dependencies(switchyard_build_info switchyard_commit)
target_link_libraries(switchyard_build_info PRIVATE switchyard_warnings)
target_include_directories(switchyard_build_info PUBLIC ${CMAKE_SOURCE_DIR})
set(_type ${CMAKE_BUILD_TYPE})
if(SWITCHYARD_SANITIZE)
  string(APPEND _type " (${SWITCHYARD_SANITIZE} sanitizers)")
endif()
set_source_files_properties(${CMAKE_SOURCE_DIR}/engine/base/build_info.cpp PROPERTIES COMPILE_DEFINITIONS
  "SWITCHYARD_VERSION=\"${PROJECT_VERSION}\";SWITCHYARD_BUILD_TYPE=\"${_type}\";SWITCHYARD_COMPILER=\"${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}\"")
