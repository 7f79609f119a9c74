"""A module for each page; `show` draws it. Of a folder named pages Streamlit would serve each file by itself."""
